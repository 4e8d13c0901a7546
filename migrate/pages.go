package migrate

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Pages, in keys, and how many bytes one should have. It holds far fewer where values are
// large; what a client of Dial takes at most bounds the first one of them.
const (
	pageMin   = 8
	pageMax   = 256
	pageBytes = 1 << 20
	pagesRead = 2 // ahead of the one that is worked on
	// Keys are looked ahead for some pages, never for more than kube-apiserver has in one.
	aheadMax   = 8192
	aheadBytes = 8 << 20
)

// page is what was read of a range.
type page struct {
	kvs     []*mvccpb.KeyValue
	settled int64 // keys that were passed over, since what they hold is known
	err     error
}

// pages calls f with all of a range as it is at the pinned revision, but for what is
// settled, which is counted. The next pages are read meanwhile. When the revision is
// compacted, the rest is read at a later one.
func (r *run) pages(ctx context.Context, s span, f func([]*mvccpb.KeyValue) error) error {
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan page, pagesRead-1)
	ended := make(chan struct{})
	reader := &reader{engine: r.engine, insist: (&run{engine: r.engine}).insist, revision: r.result.Revision, settled: r.settled, size: r.size}
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
	defer func() { cancel(); <-ended; r.result.Revision, r.size = reader.revision, reader.size }()
	for p := range read {
		if p.err != nil {
			return p.err
		}
		r.result.Keys, r.result.Done = r.result.Keys+p.settled, r.result.Done+p.settled
		r.progress.Scanned += p.settled
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
	revision int64          // pinned; 0 is the latest, which the next read pins
	settled  map[int64]bool // revisions whose values are known
	limit    int            // of the next page
	size     int            // of a value in the last one, with its key; 0: not known
}

// read calls yield with all of a range, or with what went wrong, until that returns false.
//
// It looks ahead which keys there are. Etcd counts all keys of a range for each page of it,
// so that the pages of one long range would take time by the square of its keys. Keys that
// were last written by a transaction of this run are not read again: etcd has said at which
// revision it has carried that out, and a revision's values never change.
func (r *reader) read(ctx context.Context, s span, yield func(page) bool) {
	r.limit = pageMin
	for {
		ahead, err := r.get(ctx, s, r.aheadKeys(), clientv3.WithKeysOnly())
		if err != nil {
			yield(page{err: err})
			return
		}
		keys := ahead.Kvs
		known := func(kv *mvccpb.KeyValue) bool { return r.settled[kv.ModRevision] }
		for len(keys) > 0 && known(keys[0]) {
			keys = keys[1:]
		}
		for len(keys) > 0 && known(keys[len(keys)-1]) {
			keys = keys[:len(keys)-1]
		}
		if n := len(ahead.Kvs) - len(keys); n > 0 && !yield(page{settled: int64(n)}) {
			return
		}
		if len(keys) > 0 && !r.values(ctx, span{string(keys[0].Key), after(keys)}, yield) {
			return
		}
		if !ahead.More || len(ahead.Kvs) == 0 {
			return
		}
		s.key = after(ahead.Kvs)
	}
}

// after returns the key that follows the last one.
func after(kvs []*mvccpb.KeyValue) string { return string(kvs[len(kvs)-1].Key) + "\x00" }

// aheadKeys returns how many keys to look ahead. Etcd before 3.7 reads their values for it.
func (r *reader) aheadKeys() int {
	if r.size == 0 {
		return 4 * pageMin
	}
	return min(max(aheadBytes/r.size, r.limit), aheadMax)
}

// values yields the values of a range. It returns false if that is the end.
func (r *reader) values(ctx context.Context, s span, yield func(page) bool) bool {
	for {
		answer, err := r.get(ctx, s, r.limit)
		if err != nil && tooLarge(err) && r.limit > 1 {
			r.limit = max(r.limit/4, 1)
			continue
		}
		if err != nil {
			yield(page{err: err})
			return false
		}
		if len(answer.Kvs) == 0 {
			return true
		}
		if !yield(page{kvs: answer.Kvs}) {
			return false
		}
		r.measure(answer.Kvs)
		if !answer.More {
			return true
		}
		s.key = after(answer.Kvs)
	}
}

// measure takes in how large a page was.
func (r *reader) measure(kvs []*mvccpb.KeyValue) {
	size := 0
	for _, kv := range kvs {
		size += len(kv.Key) + len(kv.Value)
	}
	r.size = max(size/len(kvs), 1)
	r.limit = min(max(pageBytes/r.size, pageMin), pageMax, 2*max(r.limit, pageMin))
}

// get reads at the pinned revision. What was there at a revision is the same on every
// member that has got so far, so that no quorum is asked; a member that has not is asked
// again once it has.
func (r *reader) get(ctx context.Context, s span, limit int, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	behind := false
	for {
		all := append([]clientv3.OpOption{clientv3.WithRange(s.end), clientv3.WithRev(r.revision), clientv3.WithLimit(int64(limit))}, opts...)
		if r.revision != 0 && !behind {
			all = append(all, clientv3.WithSerializable())
		}
		var answer *clientv3.GetResponse
		err := r.insist(ctx, func(ctx context.Context) (err error) {
			answer, err = r.engine.KV.Get(ctx, s.key, all...)
			return err
		})
		switch {
		case errors.Is(err, rpctypes.ErrCompacted) && r.revision != 0:
			r.revision = 0
		case errors.Is(err, rpctypes.ErrFutureRev) && !behind:
			behind = true
		case err != nil:
			return nil, fmt.Errorf("reading the keys from %q: %w", s.key, err)
		default:
			if r.revision == 0 {
				r.revision = answer.Header.Revision
			}
			return answer, nil
		}
	}
}
