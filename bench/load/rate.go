package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxOutstanding bounds the calls that have begun and are not answered. When a target falls so far behind, further calls begin late, and count from
// when they were to begin.
const maxOutstanding = 4096

// Pace is a fixed rate.
type Pace struct {
	// PerSecond is the number of calls that are to begin each second, at equal distances.
	PerSecond float64
	// Duration is the time in which they begin. The run ends when the last is answered.
	Duration time.Duration
	// Wait returns at a time, or early with an error when ctx ends. Nil means a timer of the kernel's that is exact to some microseconds; Go's own
	// timers are late by up to a millisecond on an idle processor, which would be more than what is measured.
	Wait func(ctx context.Context, until time.Time) error
}

// Paced is what a run at a fixed rate found out.
type Paced struct {
	// Latency is counted from the moment at which a call was to begin (no coordinated omission).
	Latency *Histogram
	// Late is how long after that moment it began.
	Late *Histogram
}

// RunAt makes calls at a fixed rate, in turn on each connection. The first failing call ends the run.
func (p *Pool) RunAt(ctx context.Context, call Call, pace Pace) (Paced, error) {
	return At(ctx, pace, func(ctx context.Context, i int) error { return call(ctx, p.conns[i%len(p.conns)]) })
}

// At makes calls of any kind at a fixed rate; i counts them from 0. The first failing call ends the run.
func At(ctx context.Context, pace Pace, call func(ctx context.Context, i int) error) (Paced, error) {
	if pace.Wait == nil {
		// The pacing thread sleeps in system calls, in which the runtime believes it busy for a while: it gets a processor of its own.
		procs := runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(procs + 1)
		defer runtime.GOMAXPROCS(procs)
	}
	return openLoop(ctx, pace, call)
}

// openLoop begins the i-th call i intervals after the start, whatever became of those before.
func openLoop(ctx context.Context, pace Pace, call func(ctx context.Context, i int) error) (Paced, error) {
	total := int(pace.PerSecond * pace.Duration.Seconds())
	if total <= 0 {
		return Paced{}, fmt.Errorf("running at %v calls a second for %s: not even one call", pace.PerSecond, pace.Duration)
	}
	ctx, cancelTime := context.WithTimeout(ctx, pace.Duration+grace)
	defer cancelTime()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := Paced{Latency: NewHistogram(), Late: NewHistogram()}
	type job struct {
		i   int
		due time.Time
	}
	jobs := make(chan job)
	var workers sync.WaitGroup
	work := func(j job) {
		out.Late.Record(time.Since(j.due))
		if err := call(ctx, j.i); err != nil {
			cancel(err)
		}
		out.Latency.Record(time.Since(j.due))
	}
	wait, release := pace.waiter()
	start, running := time.Now(), 0
	for i := range total {
		j := job{i: i, due: start.Add(time.Duration(float64(i) * float64(time.Second) / pace.PerSecond))}
		if wait(ctx, j.due) != nil {
			break
		}
		if running < maxOutstanding {
			select {
			case jobs <- j:
			default: // nobody is free
				running++
				workers.Go(func() {
					work(j)
					for j := range jobs {
						work(j)
					}
				})
			}
			continue
		}
		select {
		case jobs <- j:
		case <-ctx.Done():
		}
	}
	release()
	close(jobs)
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return Paced{}, err
	}
	return out, nil
}

// waiter chooses how to wait; release must be called by the same goroutine when it has waited for the last time.
func (p Pace) waiter() (wait func(context.Context, time.Time) error, release func()) {
	if p.Wait != nil {
		return p.Wait, func() {}
	}
	runtime.LockOSThread()
	// The kernel may be late by the thread's timer slack, 50 us unless it is told otherwise. Where that is refused, the lateness is seen in Late.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return sleepUntil, func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // back to the default
		runtime.UnlockOSThread()
	}
}

// sleepUntil blocks the thread. It notices the end of ctx afterwards: no wait is longer than a call's distance to the next.
func sleepUntil(ctx context.Context, until time.Time) error {
	for {
		left := time.Until(until)
		if left <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		ts := unix.NsecToTimespec(left.Nanoseconds())
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("sleeping: %w", err)
		}
	}
}
