package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
)

// Pauses before something is tried again: doubled each time.
const (
	pauseMin = 20 * time.Millisecond
	pauseMax = 5 * time.Second
)

// insist does something, and does it again for as long as it fails for a reason that may
// pass and patience lasts. A write may have been carried out nevertheless.
func (r *run) insist(ctx context.Context, do func(context.Context) error) error {
	started := r.engine.Now()
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		bounded, cancel := context.WithTimeout(ctx, r.engine.Timeout)
		err := do(bounded)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !transient(err) && !passing(err):
			return err
		case r.engine.Now().Sub(started) >= r.engine.Patience:
			return fmt.Errorf("giving up after %s: %w", r.engine.Patience, err)
		}
		r.engine.Logger.Warn("trying again", "error", err.Error())
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// transient reports whether what etcd says may be over in a while.
func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, rpctypes.ErrTooManyRequests) {
		return true
	}
	switch codeOf(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return true
	}
	return false
}
