package child

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Memory is what the kernel accounts to a process, in bytes. Socket buffers are not in it.
type Memory struct {
	RSS int64 // resident pages, shared ones included
	PSS int64 // the same, with every shared page divided by the number of its users
}

// CPU is the processor time, user and system, that the process has used since it began, threads that have ended included.
//
// It reads the process's CPU clock (clock_getcpuclockid(3)), which counts nanoseconds; /proc/PID/stat counts ticks of 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	d, err := cpuOf(p.PID())
	if err != nil {
		return 0, fmt.Errorf("reading CPU clock of %s: %w", p.name, err)
	}
	return d, nil
}

func cpuOf(pid int) (time.Duration, error) {
	const cpuclockSched = 2 // include/linux/posix-timers_types.h: CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// Memory reads /proc/PID/smaps_rollup.
func (p *Process) Memory() (Memory, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID()))
	if err != nil {
		return Memory{}, fmt.Errorf("reading memory of %s: %w", p.name, err)
	}
	defer f.Close()
	m, err := parseRollup(f)
	if err != nil {
		return Memory{}, fmt.Errorf("reading memory of %s: %w", p.name, err)
	}
	return m, nil
}

// parseRollup reads lines such as "Pss:   1234 kB"; the unit is always kB, which means 1024 bytes.
func parseRollup(r io.Reader) (Memory, error) {
	var m Memory
	found := 0
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		var into *int64
		switch name {
		case "Rss":
			into = &m.RSS
		case "Pss":
			into = &m.PSS
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("parsing %s: %w", name, err)
		}
		*into = kib << 10
		found++
	}
	if err := lines.Err(); err != nil {
		return Memory{}, err
	}
	if found != 2 {
		return Memory{}, fmt.Errorf("finding Rss and Pss: %d of 2 present", found)
	}
	return m, nil
}
