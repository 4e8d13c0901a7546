package kube

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSaturateMakesEachCallOnce(t *testing.T) {
	var mu sync.Mutex
	made := map[int]int{}
	done, err := saturate(t.Context(), func(_ context.Context, n int) error {
		mu.Lock()
		defer mu.Unlock()
		made[n]++
		return nil
	}, 7, 0, 100)
	if err != nil || done.calls != 100 || len(made) != 100 {
		t.Errorf("%d calls of %d numbers, %v, want 100", done.calls, len(made), err)
	}
	for n, times := range made {
		if n < 0 || n >= 100 || times != 1 {
			t.Errorf("call %d was made %d times", n, times)
		}
	}
}

func TestSaturateKeepsCallsInFlightForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		done, err := saturate(t.Context(), func(context.Context, int) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(100 * time.Millisecond) // of the bubble's clock
			now.Add(-1)
			return nil
		}, 4, 950*time.Millisecond, 0)
		// The last calls begin at 900 ms and count.
		if err != nil || done.calls != 40 || done.elapsed != time.Second || most.Load() != 4 {
			t.Errorf("%d calls in %s, %d at once, %v, want 40 in 1 s, 4 at once", done.calls, done.elapsed, most.Load(), err)
		}
	})
}

func TestSaturateEndsWithTheFirstFailure(t *testing.T) {
	want := errors.New("the reason")
	var calls atomic.Int64
	_, err := saturate(t.Context(), func(ctx context.Context, n int) error {
		calls.Add(1)
		if n == 3 {
			return want
		}
		if n > 3 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}, 2, 0, 1000)
	if !errors.Is(err, want) || calls.Load() > 6 {
		t.Errorf("error is %v after %d calls, want %v after a few", err, calls.Load(), want)
	}
}
