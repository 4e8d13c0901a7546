package load

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// timer waits by Go's timers, which a synctest bubble runs.
func timer(ctx context.Context, until time.Time) error {
	select {
	case <-time.After(time.Until(until)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestOpenLoopCountsAStall has a target stand still for a second: each of the hundred calls that were to begin meanwhile took what was left of it,
// though the target would have been asked once only by a client that waits for its answers.
func TestOpenLoopCountsAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		stalled, until := start.Add(time.Second), start.Add(2*time.Second)
		got, err := openLoop(t.Context(), Pace{PerSecond: 100, Duration: 10 * time.Second, Wait: timer}, func(_ context.Context, i int) error {
			if want := start.Add(time.Duration(i) * 10 * time.Millisecond); !time.Now().Equal(want) {
				t.Errorf("call %d began at %v, want %v", i, time.Now(), want)
			}
			if now := time.Now(); !now.Before(stalled) && now.Before(until) {
				time.Sleep(until.Sub(now))
			}
			time.Sleep(time.Millisecond)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.Latency.Count() != 1000 {
			t.Errorf("%d calls, want 1000", got.Latency.Count())
		}
		for _, c := range []struct {
			percentile float64
			want       time.Duration
		}{{50, time.Millisecond}, {89, time.Millisecond}, {95, 501 * time.Millisecond}, {100, 1001 * time.Millisecond}} {
			if p := got.Latency.Percentile(c.percentile); p < c.want-c.want/50 || p > c.want+c.want/50 {
				t.Errorf("%v %% took %v, want %v", c.percentile, p, c.want)
			}
		}
		if late := got.Late.Percentile(100); late > time.Microsecond {
			t.Errorf("calls began %v late, want on time", late)
		}
	})
}

// TestOpenLoopCountsLateBeginnings has every worker taken: calls that cannot begin count from when they were to.
func TestOpenLoopCountsLateBeginnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 2 * maxOutstanding
		got, err := openLoop(t.Context(), Pace{PerSecond: calls, Duration: time.Second, Wait: timer}, func(context.Context, int) error {
			time.Sleep(10 * time.Second)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.Latency.Count() != calls {
			t.Errorf("%d calls, want %d", got.Latency.Count(), calls)
		}
		if most := got.Latency.Percentile(100); most < 19*time.Second || most > 20*time.Second {
			t.Errorf("the slowest took %v, want its wait for a worker and its own 10 s", most)
		}
	})
}

func TestOpenLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		if _, err := openLoop(t.Context(), Pace{PerSecond: 1000, Duration: time.Hour, Wait: timer}, func(_ context.Context, i int) error {
			if i == 10 {
				return broken
			}
			return nil
		}); !errors.Is(err, broken) {
			t.Errorf("a failing call gave %v", err)
		}
		if _, err := openLoop(t.Context(), Pace{PerSecond: 1, Duration: time.Second, Wait: timer}, func(ctx context.Context, _ int) error {
			<-ctx.Done() // a call that is never answered
			return ctx.Err()
		}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call without an answer gave %v, want the end of the grace", err)
		}
		if _, err := openLoop(t.Context(), Pace{PerSecond: 0.1, Duration: time.Second, Wait: timer}, nil); err == nil {
			t.Error("a run of no calls was accepted")
		}
	})
}

func TestAlarmIsNeverEarly(t *testing.T) {
	a, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	for range 20 {
		until := time.Now().Add(300 * time.Microsecond)
		if err := a.wait(t.Context(), until); err != nil || time.Now().Before(until) {
			t.Fatalf("woke %v before its time (%v)", time.Until(until), err)
		}
	}
	if err := a.wait(t.Context(), time.Now().Add(-time.Second)); err != nil {
		t.Errorf("waiting for what is past gave %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := make(chan error, 1)
	go func() { waits <- a.wait(ctx, time.Now().Add(time.Hour)) }()
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting without a context gave %v", err)
	}
}
