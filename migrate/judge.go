package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// item is a value that is to be replaced.
type item struct {
	key      []byte
	stored   []byte
	revision int64 // the key's mod_revision with it
	leased   bool
	rule     *Rule

	out   []byte      // what is to be in its place; nil: not made yet
	dek   envelope.ID // that sealed out
	guard string      // the key of that DEK's record; "" if it is not in etcd
}

// size is roughly what the item takes in a request.
func (it *item) size() int { return 2*len(it.key) + len(it.stored) + envelope.Overhead + 64 }

// judge says what is to be done with a value: an item, or nil if nothing is.
func (r *run) judge(ctx context.Context, kv *mvccpb.KeyValue) (*item, error) {
	rule := r.engine.rules.find(kv.Key)
	if rule == nil || (rule.Sealer != nil) == (r.job.Kind == Decrypt) {
		r.result.Others++
		return nil, nil
	}
	it := &item{key: kv.Key, stored: kv.Value, revision: kv.ModRevision, leased: kv.Lease != 0, rule: rule}
	if len(kv.Value) == 0 {
		r.result.Empty++
		return nil, nil
	}
	id, err := envelope.Parse(kv.Value)
	switch plain := errors.Is(err, envelope.ErrNotEnvelope); {
	case plain && r.job.Kind == Encrypt:
		return it, nil
	case plain && r.job.Kind == Decrypt:
		r.result.Done++
		return nil, nil
	case plain:
		r.result.Others++
		return nil, nil
	case err != nil:
		r.problem(kv.Key, err)
		return nil, nil
	case r.job.Kind == Encrypt:
		r.result.Done++
		return nil, nil
	case r.job.Kind == Decrypt:
		return it, nil
	}
	return r.judgeDEK(ctx, it, id)
}

// judgeDEK says whether a value is to be sealed again.
func (r *run) judgeDEK(ctx context.Context, it *item, id envelope.ID) (*item, error) {
	if r.job.OlderThan.IsZero() {
		if id == r.job.DEK {
			return it, nil
		}
		r.result.Others++
		return nil, nil
	}
	made, err := r.madeAt(ctx, id)
	switch {
	case err != nil && saysNothing(err):
		return nil, fmt.Errorf("finding out when DEK %s was made: %w", id, err)
	case err != nil:
		r.problem(it.key, err)
		return nil, nil
	case made.Before(r.job.OlderThan):
		return it, nil
	}
	r.result.Done++
	return nil, nil
}

// madeAt returns when a DEK was made, as its record says.
func (r *run) madeAt(ctx context.Context, id envelope.ID) (time.Time, error) {
	if made, ok := r.made[id]; ok {
		return made, nil
	}
	var stored dek.Stored
	err := r.insist(ctx, func(ctx context.Context) (err error) {
		stored, err = r.engine.Store.Get(ctx, id)
		return err
	})
	if err != nil {
		return time.Time{}, err
	}
	record, err := dek.ParseRecord(stored.Data)
	if err != nil {
		return time.Time{}, fmt.Errorf("record of DEK %s: %w", id, err)
	}
	r.made[id] = record.Created
	return record.Created, nil
}

// errReadsSealed says why a value that was opened is not written.
var errReadsSealed = errors.New("its plaintext begins as an envelope does, so that it would be taken for one; have it changed by its owner")

// errOwnDEK says that a run would go on for ever.
var errOwnDEK = errors.New("the DEK that seals here is one that values are to be taken off")

// make makes what is to be in an item's place. An error is about this value alone, unless
// it is passing or ctx's.
func (r *run) make(ctx context.Context, it *item) error {
	plain := it.stored
	if r.job.Kind != Encrypt {
		id, err := envelope.Parse(it.stored)
		if err != nil {
			return err
		}
		key, err := r.engine.Keyring.OpenKey(ctx, id)
		if err != nil {
			return err
		}
		if plain, err = key.OpenTo(make([]byte, 0, len(it.stored)), it.stored, it.key); err != nil {
			return err
		}
		if r.job.Kind == Decrypt {
			if envelope.Is(plain) {
				return errReadsSealed
			}
			it.out = plain
			return nil
		}
		defer clear(plain)
	}
	key, err := it.rule.Sealer.Key(ctx)
	if err != nil {
		return &sealError{err}
	}
	if it.dek = key.ID(); r.job.Kind == Reencrypt && it.dek == envelopeID(it.stored) {
		return &sealError{errOwnDEK}
	}
	it.guard = string(r.engine.Store.RecordKey(it.dek))
	it.out = key.Seal(nil, it.key, plain)
	return nil
}

func envelopeID(value []byte) envelope.ID {
	id, _ := envelope.Parse(value) // it was parsed before
	return id
}

// sealError says that no DEK can be had to seal with, which is about no value in
// particular.
type sealError struct{ err error }

func (e *sealError) Error() string { return e.err.Error() }
func (e *sealError) Unwrap() error { return e.err }

// passing reports whether what a keyring or KEK says may be over in a while.
func passing(err error) bool {
	if errors.Is(err, dek.ErrStoreUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	if _, ok := errors.AsType[*kek.Error](err); !ok {
		return false
	}
	class := kek.ClassOf(err)
	return class == kek.Unavailable || class == kek.Throttled
}
