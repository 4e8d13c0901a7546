package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

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
	w := &walker{engine: e, look: v.look}
	for _, s := range spans {
		revision, err := w.live(ctx, s, 0)
		if err != nil {
			return v.result, fmt.Errorf("verify: %w", err)
		}
		v.result.Revision = revision
	}
	if !history {
		return v.result, nil
	}
	if err := e.tellsAll(ctx); err != nil {
		return v.result, fmt.Errorf("verify: reading history: %w", err)
	}
	for _, s := range spans {
		compacted, to, err := w.history(ctx, s, 1)
		v.result.Compacted, v.result.Revision = compacted, max(to, v.result.Revision)
		if err != nil {
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
	case saysNothing(err):
		return fmt.Errorf("opening %q: %w", kv.Key, err)
	}
	v.result.Findings++
	v.found(Finding{Place: place, Key: kv.Key, Revision: kv.ModRevision, Err: err})
	return nil
}

// saysNothing reports whether an error says nothing about the value that was to be opened: a KEK
// does not answer, or the keyring's etcd does not say what the record is, or not to this user.
func saysNothing(err error) bool {
	_, refused := errors.AsType[rpctypes.EtcdError](err)
	return refused || passing(err)
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
