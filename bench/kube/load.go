package kube

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// work makes the n-th call of a turn; n counts from 0.
type work func(ctx context.Context, n int) error

// result is what one turn did.
type result struct {
	calls   int
	elapsed time.Duration
}

// saturate keeps a number of calls in flight for d, then waits for the last ones, which count. With a limit above 0 it makes so many calls instead,
// however long that takes. The first call that fails ends it.
func saturate(ctx context.Context, do work, inFlight int, d time.Duration, limit int) (result, error) {
	start := time.Now()
	calls, err := inParallel(ctx, inFlight, func(ctx context.Context, n int) (bool, error) {
		if limit > 0 && n >= limit || limit <= 0 && time.Since(start) >= d {
			return false, nil
		}
		return true, do(ctx, n)
	})
	return result{calls: calls, elapsed: time.Since(start)}, err
}

// inParallel has workers take numbers until step says that there are no more, and returns how many steps were taken.
func inParallel(ctx context.Context, workers int, step func(ctx context.Context, n int) (bool, error)) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for ctx.Err() == nil {
				more, err := step(ctx, int(next.Add(1)-1))
				if err != nil {
					cancel(err)
				}
				if !more || err != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return int(done.Load()), context.Cause(ctx)
}
