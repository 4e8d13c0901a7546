package report

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Others finds out how much of the machine other work takes while something is measured.
type Others struct {
	ticks ticks
	own   time.Duration
	begin time.Time
}

// WatchOthers begins now.
func WatchOthers() (*Others, error) {
	o := &Others{begin: time.Now()}
	var err error
	if o.own, err = ownTime(); err != nil {
		return nil, err
	}
	return o, parseFile("/proc/stat", o.ticks.parse)
}

// Cores is how many processors work of others has kept busy since the beginning, on average. Every process that this one has started since then must
// have ended and been waited for: before that its time is not known as this one's own.
func (o *Others) Cores(cores int) (float64, error) {
	own, err := ownTime()
	if err != nil {
		return 0, err
	}
	var now ticks
	if err := parseFile("/proc/stat", now.parse); err != nil {
		return 0, err
	}
	return othersCores(now.busySince(o.ticks)*float64(cores), own-o.own, time.Since(o.begin)), nil
}

// othersCores takes the own share off. The kernel counts all work in ticks and that of one process exactly, so that the difference may be below zero.
func othersCores(busy float64, own, elapsed time.Duration) float64 {
	return max(0, busy-own.Seconds()/elapsed.Seconds())
}

// ownTime is the processor time of this process and of all that it has started and waited for.
func ownTime() (time.Duration, error) {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("reading own processor time: %w", err)
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum), nil
}
