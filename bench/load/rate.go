package load

import (
	"context"
	"fmt"
	"sync"
	"time"
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
	// Wait returns at a time, or early with an error when ctx ends. Nil means an alarm.
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
		a, err := newAlarm()
		if err != nil {
			return Paced{}, err
		}
		defer a.close()
		pace.Wait = a.wait
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
	start, running := time.Now(), 0
	for i := range total {
		j := job{i: i, due: start.Add(time.Duration(float64(i) * float64(time.Second) / pace.PerSecond))}
		if err := pace.Wait(ctx, j.due); err != nil {
			cancel(err)
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
	close(jobs)
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return Paced{}, err
	}
	return out, nil
}
