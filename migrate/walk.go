package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// walker shows values to look, one after the other, in memory that does not depend on how
// many there are.
type walker struct {
	engine *Engine
	look   func(ctx context.Context, kv *mvccpb.KeyValue, place Place) error
}

// live shows a range as it is at a revision, 0 being the latest, and returns which one
// that was. If the revision is compacted meanwhile, the rest is shown as it was later.
func (w *walker) live(ctx context.Context, s span, revision int64) (int64, error) {
	r := &run{engine: w.engine, result: &Result{Revision: revision}}
	if revision == 0 {
		if _, err := r.count(ctx, s); err != nil {
			return 0, err
		}
	}
	err := w.state(ctx, r, s, Live)
	return r.result.Revision, err
}

// state shows a range as it is at r's revision.
func (w *walker) state(ctx context.Context, r *run, s span, place Place) error {
	progress := Progress{Pass: 1}
	return r.pages(ctx, s, func(kvs []*mvccpb.KeyValue) error {
		for _, kv := range kvs {
			if err := w.look(ctx, kv, place); err != nil {
				return err
			}
		}
		progress.Scanned += int64(len(kvs))
		w.engine.Progress(progress)
		return nil
	})
}

// askEvery is how often a watch is asked how far it is.
const askEvery = 100 * time.Millisecond

// Errors of reading history.
var (
	errNoWatcher = errors.New("there is no watcher")
	// errFell says that an etcd is not where it was.
	errFell = errors.New("etcd was put back to an older state meanwhile")
)

// history shows everything that etcd retains of a range from a revision on: as it was
// when etcd was compacted, if that was later, and each change since, up to the latest. It
// returns the revision of the compaction, if there was one, and that latest one.
func (w *walker) history(ctx context.Context, s span, from int64) (compacted, to int64, err error) {
	watcher, ok := w.engine.KV.(clientv3.Watcher)
	if !ok {
		return 0, 0, errNoWatcher
	}
	err = (&run{engine: w.engine}).insist(ctx, func(ctx context.Context) error {
		latest, err := w.engine.KV.Get(ctx, s.key, clientv3.WithCountOnly())
		if err == nil {
			to = latest.Header.Revision
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	if to < from-1 {
		return 0, to, fmt.Errorf("%w: it is at revision %d, and was at %d", errFell, to, from-1)
	}
	for from <= to {
		at, err := w.changes(ctx, watcher, s, from, to)
		if err != nil || at == 0 {
			return compacted, to, err
		}
		// What was there at that revision is retained, and so is all that came after.
		compacted = at
		r := &run{engine: w.engine, result: &Result{Revision: compacted}}
		if err := w.state(ctx, r, s, History); err != nil {
			return compacted, to, err
		}
		from = compacted + 1
	}
	return compacted, to, nil
}

// changes shows what was written to a range from one revision to another, both included.
// If etcd has been compacted after the first, it shows nothing, or not all, and returns
// that revision.
func (w *walker) changes(ctx context.Context, watcher clientv3.Watcher, s span, from, to int64) (compacted int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := watcher.Watch(ctx, s.key, clientv3.WithRange(s.end), clientv3.WithRev(from), clientv3.WithCreatedNotify(), clientv3.WithFragment())
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	// An etcd that was put back to an older state says nothing until it is at from.
	stuck := time.NewTimer(w.engine.Patience)
	defer stuck.Stop()
	for at := int64(0); ; {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-stuck.C:
			return 0, fmt.Errorf("etcd told of nothing beyond revision %d for %s, which it was at before: it does not answer, or was put back to an older state", max(at, from-1), w.engine.Patience)
		case <-ask.C:
			if err := watcher.RequestProgress(ctx); err != nil {
				return 0, err
			}
		case answer, ok := <-changes:
			switch {
			case !ok:
				return 0, errors.New("the watch ended")
			case answer.CompactRevision > 0:
				return answer.CompactRevision, nil
			case answer.Err() != nil:
				return 0, answer.Err()
			}
			for _, event := range answer.Events {
				if event.Type == mvccpb.Event_PUT && event.Kv.ModRevision <= to {
					if err := w.look(ctx, event.Kv, History); err != nil {
						return 0, err
					}
				}
				if event.Kv.ModRevision > to {
					return 0, nil
				}
			}
			if answer.Header.Revision > at || len(answer.Events) > 0 {
				at = answer.Header.Revision
				stuck.Reset(w.engine.Patience)
			}
			if answer.IsProgressNotify() && answer.Header.Revision >= to {
				return 0, nil
			}
		}
	}
}
