package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/time/rate"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Pages. One holds as many values as a transaction takes at most, so that no page of
// the largest values that etcd takes is more than some 190 MiB, and far fewer when those
// before were large.
const (
	pageMin   = 4
	pageMax   = 128
	pageBytes = 2 << 20
	// lookAhead is how many keys are looked ahead where values were small: as many as
	// kube-apiserver has in a page, since etcd reads the values for it, too.
	lookAhead = 4 * pageMax
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

	pending      []*item // to be written
	pendingBytes int
	flying       []*attempt
	written      int64 // since somebody looked at the quota
}

func newLimiter(perSecond int) *rate.Limiter {
	if perSecond == 0 {
		return rate.NewLimiter(rate.Inf, maxItems)
	}
	return rate.NewLimiter(rate.Limit(perSecond), maxItems)
}

// passes goes over everything until there is nothing left to do.
func (r *run) passes(ctx context.Context) error {
	if err := r.checkQuota(ctx); err != nil && !r.job.DryRun {
		return err
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
		if r.result.Left == 0 && r.result.Changed == changed {
			return nil
		}
		if r.result.Passes >= r.engine.MaxPasses {
			return ErrUnfinished
		}
	}
}

// pass goes over everything once.
func (r *run) pass(ctx context.Context) error {
	res := r.result
	res.Keys, res.Done, res.Empty, res.Others, res.Left, res.LeftBytes = 0, 0, 0, 0, 0, 0
	res.Problems, res.Omitted = nil, 0
	r.pending, r.pendingBytes = nil, 0
	defer r.abandon()
	progress := Progress{Pass: res.Passes, Changed: res.Changed}
	for _, s := range r.spans {
		n, err := r.count(ctx, s)
		if err != nil {
			return err
		}
		progress.Total += n
	}
	r.engine.Progress(progress)
	for _, s := range r.spans {
		err := r.pages(ctx, s, func(kvs []*mvccpb.KeyValue) error {
			for _, kv := range kvs {
				if err := r.take(ctx, kv); err != nil {
					return err
				}
			}
			progress.Scanned += int64(len(kvs))
			progress.Changed = res.Changed
			r.engine.Progress(progress)
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
	progress.Changed = res.Changed
	r.engine.Progress(progress)
	return nil
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

// page is what was read of a range.
type page struct {
	kvs []*mvccpb.KeyValue
	err error
}

// pages calls f with all of a range as it is at the pinned revision. The next page is
// read meanwhile. When the revision is compacted, the rest is read at a later one.
func (r *run) pages(ctx context.Context, s span, f func([]*mvccpb.KeyValue) error) error {
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan page)
	ended := make(chan struct{})
	reader := &reader{engine: r.engine, insist: (&run{engine: r.engine}).insist, revision: r.result.Revision}
	go func() { // ends with ctx, and is waited for below
		defer close(ended)
		defer close(read)
		reader.read(ctx, s, func(p page) bool {
			select {
			case read <- p:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	defer func() { cancel(); <-ended; r.result.Revision = reader.revision }()
	for p := range read {
		if p.err != nil {
			return p.err
		}
		if err := f(p.kvs); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// reader reads a range page by page.
type reader struct {
	engine   *Engine
	insist   func(context.Context, func(context.Context) error) error
	revision int64
}

func (r *reader) read(ctx context.Context, s span, yield func(page) bool) {
	limit, end := pageMin, s.end
	for {
		if limit == pageMax && end == s.end {
			end = r.ahead(ctx, s)
		}
		var answer *clientv3.GetResponse
		err := r.insist(ctx, func(ctx context.Context) (err error) {
			answer, err = r.engine.KV.Get(ctx, s.key, clientv3.WithRange(end), clientv3.WithRev(r.revision), clientv3.WithLimit(int64(limit)))
			return err
		})
		if errors.Is(err, rpctypes.ErrCompacted) {
			r.revision = 0 // the latest
			continue
		}
		if err != nil {
			yield(page{err: fmt.Errorf("reading the keys from %q: %w", s.key, err)})
			return
		}
		if r.revision == 0 {
			r.revision = answer.Header.Revision
		}
		if !yield(page{kvs: answer.Kvs}) {
			return
		}
		if !answer.More || len(answer.Kvs) == 0 {
			if end == s.end {
				return
			}
			s.key, end = end, s.end // beyond what was looked ahead
			continue
		}
		size := 0
		for _, kv := range answer.Kvs {
			size += len(kv.Key) + len(kv.Value)
		}
		switch {
		case size < pageBytes/2:
			limit = min(2*limit, pageMax)
		case size > pageBytes:
			limit = max(limit/2, pageMin)
		}
		s.key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// ahead returns a key some pages ahead, up to which the next pages are read. Etcd counts
// all keys of a range for each page of it, so that the pages of one long range would take
// time by the square of its keys. It returns the range's end if that is nearer, or if
// etcd does not answer, which the pages find out.
func (r *reader) ahead(ctx context.Context, s span) string {
	bounded, cancel := context.WithTimeout(ctx, r.engine.Timeout)
	defer cancel()
	answer, err := r.engine.KV.Get(bounded, s.key, clientv3.WithRange(s.end), clientv3.WithRev(r.revision), clientv3.WithLimit(lookAhead), clientv3.WithKeysOnly())
	if err != nil || !answer.More || len(answer.Kvs) == 0 {
		return s.end
	}
	return string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
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
	if len(r.pending) == maxItems || len(r.pending) > 0 && r.pendingBytes+it.size() > txnBytes {
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
