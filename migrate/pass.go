package migrate

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/time/rate"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// run is one Job being done. It is used by one goroutine: those of attempts and pages have
// nothing of it but the engine.
type run struct {
	engine  *Engine
	job     Job
	result  *Result
	spans   []span
	limiter *rate.Limiter
	made    map[envelope.ID]time.Time // when DEKs were made

	progress Progress

	pending      []*item // to be written
	pendingBytes int
	flying       []*attempt
	moved        int64                // keys found changed or gone in this pass when they were to be written
	fresh        []int64              // revisions of this pass's transactions
	size         int                  // of a value in the last page that was read
	settled      map[int64]bool       // those of earlier passes; not changed while a pass goes on
	written      int64                // since somebody looked at the quota
	away         map[string]time.Time // endpoints that did not say their size, and until when they are left alone
}

func newLimiter(perSecond int) *rate.Limiter {
	if perSecond == 0 {
		return rate.NewLimiter(rate.Inf, maxItems)
	}
	return rate.NewLimiter(rate.Limit(perSecond), batchOf(perSecond))
}

// batchOf returns how many values a transaction has at a rate. Clients wait while etcd works
// on one, so that whoever asks for a rate for their sake gets smaller ones, more often.
func batchOf(perSecond int) int {
	if perSecond == 0 {
		return maxItems
	}
	return min(max(perSecond/perSecondAimed, minItems), maxItems)
}

// passes goes over everything until there is nothing left to do.
func (r *run) passes(ctx context.Context) error {
	if !r.job.DryRun { // which ends with a look at it
		if err := r.checkQuota(ctx); err != nil {
			return err
		}
	}
	for {
		r.result.Passes++
		changed := r.result.Changed
		if err := r.pass(ctx); err != nil {
			return err
		}
		if r.job.DryRun {
			return r.estimate(ctx)
		}
		if r.result.Left == 0 && r.result.Changed == changed && r.moved == 0 {
			return nil
		}
		if r.result.Passes >= r.engine.MaxPasses {
			return ErrUnfinished
		}
	}
}

// reset makes a run ready for another pass.
func (r *run) reset() {
	res := r.result
	res.Keys, res.Done, res.Empty, res.Others, res.Left, res.LeftBytes = 0, 0, 0, 0, 0, 0
	res.Problems, res.Omitted = nil, 0
	r.pending, r.pendingBytes, r.moved = nil, 0, 0
	for _, revision := range r.fresh {
		r.settled[revision] = true
	}
	r.fresh = nil
	r.progress = Progress{Pass: res.Passes}
}

// pass goes over everything once.
func (r *run) pass(ctx context.Context) error {
	r.reset()
	defer r.abandon()
	for _, s := range r.spans {
		n, err := r.count(ctx, s)
		if err != nil {
			return err
		}
		r.progress.Total += n
	}
	r.show()
	for _, s := range r.spans {
		err := r.pages(ctx, s, func(kvs []*mvccpb.KeyValue) error {
			for _, kv := range kvs {
				if err := r.take(ctx, kv); err != nil {
					return err
				}
			}
			r.progress.Scanned += int64(len(kvs))
			r.show()
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	for len(r.flying) > 0 {
		if err := r.land(ctx); err != nil {
			return err
		}
	}
	r.show()
	return nil
}

// show tells how far the run is.
func (r *run) show() {
	r.progress.Changed = r.result.Changed
	r.engine.Progress(r.progress)
}

// count returns how many keys a range has, and pins the pass's revision.
func (r *run) count(ctx context.Context, s span) (n int64, err error) {
	err = r.insist(ctx, func(ctx context.Context) error {
		answer, err := r.engine.KV.Get(ctx, s.key, clientv3.WithRange(s.end), clientv3.WithCountOnly())
		if err == nil {
			n, r.result.Revision = answer.Count, answer.Header.Revision
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("counting the keys from %q: %w", s.key, err)
	}
	return n, nil
}

// take looks at one value as it was read.
func (r *run) take(ctx context.Context, kv *mvccpb.KeyValue) error {
	if r.engine.rules.find(kv.Key) == nil {
		return nil
	}
	r.result.Keys++
	it, err := r.judge(ctx, kv)
	if err != nil || it == nil {
		return err
	}
	if r.job.DryRun {
		r.result.Left++
		r.result.LeftBytes += int64(len(kv.Key) + len(kv.Value))
		return nil
	}
	if len(r.pending) >= batchOf(r.engine.Rate) || len(r.pending) > 0 && r.pendingBytes+it.size() > txnBytes {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.pending = append(r.pending, it)
	r.pendingBytes += it.size()
	return nil
}

// problem names a value that is left as it is.
func (r *run) problem(key []byte, err error) {
	if len(r.result.Problems) == maxProblems {
		r.result.Omitted++
		return
	}
	r.result.Problems = append(r.result.Problems, Problem{Key: key, Err: err})
}
