package child

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// OwnCPU is the processor time of the calling process.
func OwnCPU() (time.Duration, error) {
	d, err := cpuOf(os.Getpid())
	if err != nil {
		return 0, fmt.Errorf("reading own CPU clock: %w", err)
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

// Memory reads /proc/PID/smaps_rollup. Of a process that is not dumpable, as etcdseal is not, the kernel shows that to root only: to others, RSS stands
// for PSS, which it exceeds by the share of pages that other processes use too.
func (p *Process) Memory() (Memory, error) {
	var m Memory
	err := p.fields("smaps_rollup", map[string]*int64{"Rss": &m.RSS, "Pss": &m.PSS})
	if errors.Is(err, fs.ErrPermission) {
		err = p.fields("status", map[string]*int64{"VmRSS": &m.RSS})
		m.PSS = m.RSS
	}
	if err != nil {
		return Memory{}, fmt.Errorf("reading memory of %s: %w", p.name, err)
	}
	return m, nil
}

// fields reads a file of the process in /proc.
func (p *Process) fields(name string, into map[string]*int64) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", p.PID(), name))
	if err != nil {
		return err
	}
	defer f.Close()
	return parseFields(f, into)
}

// ResetPeak has PeakRSS begin anew at what is resident now (proc_pid_clear_refs(5)). Where that is refused, as Memory says, it does nothing.
func (p *Process) ResetPeak() error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID()), []byte("5"), 0)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("resetting peak memory of %s: %w", p.name, err)
	}
	return nil
}

// PeakRSS is the most that was resident at once since the start or the last ResetPeak, in bytes. The kernel keeps no such mark of the PSS.
func (p *Process) PeakRSS() (int64, error) {
	var peak int64
	if err := p.fields("status", map[string]*int64{"VmHWM": &peak}); err != nil {
		return 0, fmt.Errorf("reading peak memory of %s: %w", p.name, err)
	}
	return peak, nil
}

// parseFields reads lines such as "Pss:   1234 kB", of which all that are asked for must be there; the unit is always kB, which means 1024 bytes.
func parseFields(r io.Reader, into map[string]*int64) error {
	found := 0
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		value, ok := into[name]
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			return fmt.Errorf("parsing %s: %w", name, err)
		}
		*value = kib << 10
		found++
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if found != len(into) {
		return fmt.Errorf("finding %d fields: %d present", len(into), found)
	}
	return nil
}
