package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Place says where a Finding is.
type Place string

// The places.
const (
	Live    Place = "live"    // what clients read
	History Place = "history" // an earlier revision that etcd retains
	Disk    Place = "disk"    // a file
)

// Finding is a place where a value under a rule that seals lies unsealed, or sealed in a
// way that cannot be opened. It never holds the value.
type Finding struct {
	Place    Place
	Key      []byte
	Revision int64  // of etcd, if it is known
	File     string // on disk
	Offset   int64  // in File, of the record that holds the key and the value
	Kind     string // on disk: what the record is
	Err      error
}

// ErrPlaintext is the Err of a Finding whose value is not sealed.
var ErrPlaintext = errors.New("plaintext")

// Verified is what was looked at. The findings went to the caller one by one.
type Verified struct {
	Keys      int64 // values looked at that are under a rule that seals
	Sealed    int64
	Findings  int64
	Revision  int64 // the latest one looked at
	Compacted int64 // with history: the earliest one that etcd retains
	Elapsed   time.Duration
}

// Verify looks at every live value under a rule that seals, and opens it. With history
// it looks at every revision of them that etcd retains, too: as they were when etcd was
// compacted, and all that was written since.
func (e *Engine) Verify(ctx context.Context, prefix string, history bool, found func(Finding)) (*Verified, error) {
	v := &verifier{engine: e, found: found, result: &Verified{}}
	start := e.Now()
	defer func() { v.result.Elapsed = e.Now().Sub(start) }()
	sealing, _ := e.rules.reach(prefix)
	if len(sealing) == 0 {
		return v.result, fmt.Errorf("verify: %w that says `seal: true` is about keys that begin with %q", ErrNoRule, prefix)
	}
	spans := e.rules.spans(prefix)
	r := &run{engine: e, result: &Result{}}
	for _, s := range spans {
		if _, err := r.count(ctx, s); err != nil {
			return v.result, fmt.Errorf("verify: %w", err)
		}
		if err := v.state(ctx, r, s, Live); err != nil {
			return v.result, fmt.Errorf("verify: %w", err)
		}
	}
	v.result.Revision = r.result.Revision
	if !history {
		return v.result, nil
	}
	for _, s := range spans {
		if err := v.history(ctx, s); err != nil {
			return v.result, fmt.Errorf("verify: reading history: %w", err)
		}
	}
	return v.result, nil
}

type verifier struct {
	engine *Engine
	found  func(Finding)
	result *Verified
}

// state looks at a range as it is at r's revision.
func (v *verifier) state(ctx context.Context, r *run, s span, place Place) error {
	progress := Progress{Pass: 1}
	return r.pages(ctx, s, func(kvs []*mvccpb.KeyValue) error {
		for _, kv := range kvs {
			if err := v.look(ctx, kv, place); err != nil {
				return err
			}
		}
		progress.Scanned += int64(len(kvs))
		v.engine.Progress(progress)
		return nil
	})
}

// look judges one value.
func (v *verifier) look(ctx context.Context, kv *mvccpb.KeyValue, place Place) error {
	if len(kv.Value) == 0 || !v.engine.rules.sealed(kv.Key) {
		return nil
	}
	v.result.Keys++
	err := v.engine.opens(ctx, kv)
	switch {
	case err == nil:
		v.result.Sealed++
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case passing(err):
		return fmt.Errorf("opening %q: %w", kv.Key, err)
	}
	v.result.Findings++
	v.found(Finding{Place: place, Key: kv.Key, Revision: kv.ModRevision, Err: err})
	return nil
}

// opens reports whether a value is sealed and can be opened.
func (e *Engine) opens(ctx context.Context, kv *mvccpb.KeyValue) error {
	id, err := envelope.Parse(kv.Value)
	if errors.Is(err, envelope.ErrNotEnvelope) {
		return ErrPlaintext
	}
	if err != nil {
		return err
	}
	key, err := e.Keyring.OpenKey(ctx, id)
	if err != nil {
		return err
	}
	plain, err := key.OpenTo(nil, kv.Value, kv.Key)
	clear(plain)
	return err
}

// askEvery is how often a watch is asked how far it is.
const askEvery = 100 * time.Millisecond

// errNoWatcher says that history cannot be read.
var errNoWatcher = errors.New("there is no watcher")

// history looks at a range as it was when etcd was compacted, and at each change since.
func (v *verifier) history(ctx context.Context, s span) error {
	watcher, ok := v.engine.KV.(clientv3.Watcher)
	if !ok {
		return errNoWatcher
	}
	latest, err := v.engine.KV.Get(ctx, s.key, clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	target := latest.Header.Revision
	for from := int64(1); ; {
		compacted, err := v.changes(ctx, watcher, s, from, target)
		if err != nil || compacted == 0 {
			v.result.Compacted, v.result.Revision = max(from-1, 0), max(target, v.result.Revision)
			return err
		}
		// What was there at that revision is retained, and so is all that came after.
		r := &run{engine: v.engine, result: &Result{Revision: compacted}}
		if err := v.state(ctx, r, s, History); err != nil {
			return err
		}
		from = compacted + 1
		if compacted >= target {
			v.result.Compacted = compacted
			return nil
		}
	}
}

// changes looks at what was written to a range from one revision to another, both
// included. If etcd has been compacted after the first, it looks at nothing, or not at
// all, and returns that revision.
func (v *verifier) changes(ctx context.Context, watcher clientv3.Watcher, s span, from, to int64) (compacted int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := watcher.Watch(ctx, s.key, clientv3.WithRange(s.end), clientv3.WithRev(from), clientv3.WithCreatedNotify(), clientv3.WithFragment())
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
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
					if err := v.look(ctx, event.Kv, History); err != nil {
						return 0, err
					}
				}
				if event.Kv.ModRevision > to {
					return 0, nil
				}
			}
			if answer.IsProgressNotify() && answer.Header.Revision >= to {
				return 0, nil
			}
		}
	}
}
