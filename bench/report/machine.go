package report

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Busy is the number of processors that may be busy with other work before and during a run; with more, its figures are not to be relied on.
const Busy = 0.5

// lookTime is how long the machine is looked at before a run.
const lookTime = time.Second

// Machine is what a reader must know of the machine to compare figures with those of another. Nothing in it names the machine.
type Machine struct {
	Date     string    `json:"date"` // of the run, in UTC, without the time of day
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	Memory   int64     `json:"memoryBytes"`
	Kernel   string    `json:"kernel"`
	Platform string    `json:"platform"` // as in linux/amd64
	Load     float64   `json:"load"`     // processors that were busy with other work just before the run
	Others   float64   `json:"others"`   // the same during the run, on average
	Versions []Version `json:"versions"`
}

// Version is that of a program which took part.
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// ReadMachine describes the machine that this process runs on, before anything is measured; it looks for a second at how busy it is. Go's version is
// added to those given.
func ReadMachine(now time.Time, versions ...Version) (Machine, error) {
	m := Machine{
		Date: now.UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Versions: append([]Version{{Name: "Go", Version: strings.TrimPrefix(runtime.Version(), "go")}}, versions...),
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return Machine{}, fmt.Errorf("reading the kernel's version: %w", err)
	}
	m.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(uname.Release[:]), "-") // what follows names whoever built it
	for _, f := range []struct {
		path  string
		parse func(io.Reader) error
	}{
		{"/proc/cpuinfo", func(r io.Reader) (err error) { m.CPU, err = parseCPU(r); return err }},
		{"/proc/meminfo", func(r io.Reader) (err error) { m.Memory, err = parseMemory(r); return err }},
	} {
		if err := parseFile(f.path, f.parse); err != nil {
			return Machine{}, err
		}
	}
	var before, after ticks
	err := parseFile("/proc/stat", before.parse)
	<-time.After(lookTime)
	if err := errors.Join(err, parseFile("/proc/stat", after.parse)); err != nil {
		return Machine{}, err
	}
	m.Load = after.busySince(before) * float64(m.Cores)
	return m, nil
}

// ticks are what the kernel counted of all processors' time since the start.
type ticks struct{ all, idle int64 }

// parse reads the first line of /proc/stat: "cpu user nice system idle iowait irq softirq steal guest guest_nice", the last two of which are in user
// and nice already (proc_stat(5)).
func (t *ticks) parse(r io.Reader) error {
	var name string
	var n [8]int64
	if _, err := fmt.Fscan(r, &name, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7]); err != nil {
		return err
	}
	if name != "cpu" {
		return fmt.Errorf("the first line is of %q, want cpu", name)
	}
	for _, value := range n {
		t.all += value
	}
	t.idle = n[3] + n[4]
	return nil
}

// busySince is the share of the time in which a processor was not idle; 0 when no time went by.
func (t ticks) busySince(before ticks) float64 {
	all := t.all - before.all
	if all <= 0 {
		return 0
	}
	return 1 - float64(t.idle-before.idle)/float64(all)
}

func parseFile(path string, parse func(io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("describing the machine: %w", err)
	}
	defer file.Close()
	if err := parse(file); err != nil {
		return fmt.Errorf("describing the machine: parsing %s: %w", path, err)
	}
	return nil
}

// parseCPU finds the model's name; not every architecture says one.
func parseCPU(r io.Reader) (string, error) {
	name, err := field(r, "model name")
	if name == "" {
		name = "unknown model"
	}
	return name, err
}

// parseMemory reads "MemTotal: 123 kB", which means units of 1024 bytes.
func parseMemory(r io.Reader) (int64, error) {
	text, err := field(r, "MemTotal")
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(text, "kB")), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("MemTotal: %w", err)
	}
	return kib << 10, nil
}

// field is the value of the first line "NAME : value"; empty when there is none.
func field(r io.Reader, name string) (string, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", lines.Err()
}

// Disturbed says whether other work took so much that the figures are not to be relied on.
func (m Machine) Disturbed() bool { return max(m.Load, m.Others) > Busy }

// String is one line for people.
func (m Machine) String() string {
	var versions []string
	for _, v := range m.Versions {
		versions = append(versions, v.Name+" "+v.Version)
	}
	return fmt.Sprintf("%d cores of %s, %.0f GiB, Linux %s, %s; %s; %s; other work took %.1f cores before and %.1f during the run", m.Cores, m.CPU, float64(m.Memory)/(1<<30), m.Kernel, m.Platform,
		strings.Join(versions, ", "), m.Date, m.Load, m.Others)
}
