// Package poll waits for something outside the test's process: another
// process has no channel to wait on, so its state is asked for again and
// again, always with a limit.
package poll

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// interval is the pause between two attempts.
const interval = 20 * time.Millisecond

// Permanent wraps an error after which no further attempt makes sense; Until
// fails at once.
type Permanent struct{ Err error }

func (p Permanent) Error() string { return p.Err.Error() }

// Unwrap returns the wrapped error.
func (p Permanent) Unwrap() error { return p.Err }

// Until calls try until it returns nil, and fails the test with the last error
// when limit has passed or try returned a Permanent error. Each attempt's
// context ends with the limit. Call it from the test's own goroutine only.
func Until(t testing.TB, limit time.Duration, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := Do(ctx, try); err != nil {
		t.Fatalf("waiting for %s (limit %v): %v", what, limit, err)
	}
}

// Do is Until for callers without a test: it returns the last error of try
// when ctx has ended or the error was Permanent. It is safe to call from any
// goroutine.
func Do(ctx context.Context, try func(context.Context) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		var permanent Permanent
		if errors.As(err, &permanent) {
			return permanent.Err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last attempt: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}
