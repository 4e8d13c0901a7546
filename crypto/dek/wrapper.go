package dek

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// wrapper is the configured KEKs, and the only place that DEK bytes pass through.
type wrapper struct {
	keyring string
	authKey []byte
	keks    map[string]*holder
	timeout time.Duration
	obs     Observer
	auditor Auditor
}

// holder is one configured KEK.
type holder struct {
	name string
	kek  kek.KEK
	// failed says that the KEK did not do the last thing it was asked. It is
	// asked last, then, where another will do.
	failed atomic.Bool
}

func newWrapper(c Config) wrapper {
	w := wrapper{keyring: c.Keyring, authKey: c.AuthKey, timeout: c.KEKTimeout, obs: c.Observer, auditor: c.Auditor}
	w.keks = make(map[string]*holder, len(c.KEKs))
	for name, k := range c.KEKs {
		w.keks[name] = &holder{name: name, kek: k}
	}
	return w
}

// call asks a KEK for something, for a bounded time, and tells the Observer. The
// error is a *kek.Error with the KEK's name.
func (w *wrapper) call(ctx context.Context, h *holder, op string, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	start := time.Now()
	err := do(ctx)
	w.obs.KEKCall(h.name, op, kek.ClassOf(err), time.Since(start))
	h.failed.Store(err != nil)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*kek.Error](err); ok && e.KEK != "" {
		return err
	}
	return &kek.Error{Class: kek.ClassOf(err), Op: op, KEK: h.name, Err: err}
}

// version asks a KEK which version it would wrap by.
func (w *wrapper) version(ctx context.Context, h *holder) (v string, err error) {
	err = w.call(kek.WithWhy(ctx, kek.WhyVersion), h, kek.OpVersion, func(ctx context.Context) (err error) {
		v, err = h.kek.Version(ctx)
		return err
	})
	return v, err
}

// unwrap asks a KEK for the DEK in one wrapping, and refuses one that is not id's.
// The caller wipes the DEK.
func (w *wrapper) unwrap(ctx context.Context, h *holder, id envelope.ID, wrapped *Wrapping) (dek []byte, err error) {
	err = w.call(kek.WithDEK(ctx, id.String()), h, kek.OpUnwrap, func(ctx context.Context) (err error) {
		dek, err = h.kek.Unwrap(ctx, wrapped.wrapping())
		if err != nil {
			return err
		}
		if !w.isDEK(dek, h, id, wrapped) {
			clear(dek)
			return &kek.Error{Class: kek.Corrupt, Op: kek.OpUnwrap, KEK: h.name, Version: wrapped.Version, Err: ErrMismatch}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return dek, nil
}

// open makes the key of a record, which was checked, by whichever of its wrappings will
// do, and returns which one did.
func (w *wrapper) open(ctx context.Context, r *Record) (*envelope.Key, *Wrapping, error) {
	var errs []error
	for _, wrapped := range w.likely(r) {
		dek, err := w.unwrap(ctx, w.keks[wrapped.KEK], r.ID, wrapped)
		if err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		key, err := envelope.NewKey(r.ID, dek)
		clear(dek)
		return key, wrapped, err
	}
	if len(errs) == 0 {
		return nil, nil, fmt.Errorf("%w: %s", ErrNoKEK, names(r))
	}
	return nil, nil, joinKEKErrors(errs)
}

// likely returns the wrappings by configured KEKs, those that work first.
func (w *wrapper) likely(r *Record) []*Wrapping {
	var good, bad []*Wrapping
	for i := range r.Wrappings {
		wrapped := &r.Wrappings[i]
		switch h := w.keks[wrapped.KEK]; {
		case h == nil:
		case h.failed.Load():
			bad = append(bad, wrapped)
		default:
			good = append(good, wrapped)
		}
	}
	return append(good, bad...)
}

// names lists the KEKs of a record.
func names(r *Record) string {
	var list []string
	for _, w := range r.Wrappings {
		list = append(list, fmt.Sprintf("%.64q", w.KEK))
	}
	slices.Sort(list)
	return fmt.Sprint(slices.Compact(list))
}

// fresh is a new DEK with a record that was proved: every wrapping in it was read
// back from the record's bytes, unwrapped, and gave the same DEK.
type fresh struct {
	key     *envelope.Key
	record  *Record
	data    []byte  // the record's encoding
	missing []error // why wrappings by recovery KEKs are missing
}

// recoveryPatience is how long a KEK for recovery may take to wrap a new DEK and to prove
// it. Somebody may wait to seal; a wrapping that is missing is added afterwards.
const recoveryPatience = 10 * time.Second

// make makes a DEK that is wrapped by all of the KEKs named. Only the first has to
// answer: without the others the DEK can do its work, if not survive the first.
func (w *wrapper) make(ctx context.Context, keks []string, created, sealUntil time.Time) (*fresh, error) {
	dek := make([]byte, envelope.KeySize)
	defer clear(dek)
	rand.Read(dek) // never fails: crypto/rand ends the process instead
	f := &fresh{record: &Record{
		ID: envelope.DeriveID(dek, w.authKey, w.keyring), Keyring: w.keyring, Created: created, SealUntil: sealUntil,
	}}
	for i, name := range keks {
		bounded, cancel := ctx, func() {}
		if i > 0 {
			bounded, cancel = context.WithTimeout(ctx, recoveryPatience)
		}
		wrapped, err := w.wrap(bounded, w.keks[name], f.record, dek)
		cancel()
		switch {
		case err == nil:
			f.record.Wrappings = append(f.record.Wrappings, *wrapped)
		case i == 0:
			return nil, err
		default:
			f.missing = append(f.missing, err)
		}
	}
	var err error
	if f.data, err = f.record.Marshal(); err != nil {
		return nil, err
	}
	if f.key, err = envelope.NewKey(f.record.ID, dek); err != nil {
		return nil, err
	}
	return f, nil
}

// wrap wraps a DEK by one KEK and proves the wrapping, as it is in the bytes of a
// record, by an unwrap.
func (w *wrapper) wrap(ctx context.Context, h *holder, r *Record, dek []byte) (*Wrapping, error) {
	var got kek.Wrapping
	err := w.call(kek.WithDEK(ctx, r.ID.String()), h, kek.OpWrap, func(ctx context.Context) (err error) {
		got, err = h.kek.Wrap(ctx, dek)
		return err
	})
	if err != nil {
		return nil, err
	}
	trial := *r
	trial.Wrappings = []Wrapping{{KEK: h.name, Version: got.Version, Algorithm: got.Algorithm, Ciphertext: got.Ciphertext, Annotations: got.Annotations}}
	data, err := trial.Marshal()
	if err != nil {
		return nil, &kek.Error{Class: kek.Corrupt, Op: kek.OpWrap, KEK: h.name, Err: err}
	}
	parsed, err := ParseRecord(data)
	if err != nil {
		return nil, &kek.Error{Class: kek.Corrupt, Op: kek.OpWrap, KEK: h.name, Err: err}
	}
	again, err := w.unwrap(kek.WithWhy(ctx, kek.WhyProof), h, r.ID, &parsed.Wrappings[0])
	if err != nil {
		return nil, fmt.Errorf("proving the new wrapping: %w", err)
	}
	defer clear(again)
	if subtle.ConstantTimeCompare(again, dek) != 1 {
		return nil, &kek.Error{Class: kek.Corrupt, Op: kek.OpUnwrap, KEK: h.name, Version: got.Version, Err: ErrMismatch}
	}
	return &parsed.Wrappings[0], nil
}
