package dek

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Burial is the removal of one record for good, in steps, each a compare-and-swap: the
// record is claimed; the caller makes sure that nothing needs it; it is buried; and if
// something needed it after all, it is put back.
//
// The claim is what ties these together. It changes the record, so that from then on the
// record has a revision which no earlier state of the store has: a store that is put back
// to one, a rotation, another Burial, all make Bury fail. Whether anything needs the
// record has to be found out after the claim.
type Burial struct {
	store    Burier
	auditor  Auditor
	now      func() time.Time
	record   *Record
	data     []byte // as it was before the claim
	revision int64  // with the claim
}

// BurialTools are what a Burial works with.
type BurialTools struct {
	Store   Burier
	Auditor Auditor          // nil is none
	Now     func() time.Time // nil is time.Now
}

// errClaimed says that a process is at a record.
var errClaimed = errors.New("another process is changing the record: wait until it is done")

// Claim begins a Burial of a record as it was listed. It fails with ErrConflict if the
// record is not like that any more. The claim ends by itself after a time, for rotations,
// not for the Burial.
func (t BurialTools) Claim(ctx context.Context, r Listed, patience time.Duration) (*Burial, error) {
	b := &Burial{store: t.Store, auditor: t.Auditor, now: t.Now, record: r.Record, data: r.Data}
	if b.auditor == nil {
		b.auditor = nopAuditor{}
	}
	if b.now == nil {
		b.now = time.Now
	}
	if r.Record == nil {
		return nil, &Error{ID: r.ID, Op: "burying", Err: r.Err}
	}
	now := b.now()
	if c := r.Record.Claim; c != nil && now.Before(c.Until) {
		return nil, &Error{ID: r.ID, Op: "burying", Err: errClaimed}
	}
	claimed := *r.Record
	claimed.Claim = &Claim{By: newSelf(), Until: now.Add(patience).UTC().Truncate(time.Second)}
	data, err := claimed.Marshal()
	if err == nil {
		b.revision, err = b.write(ctx, data, r.Revision)
	}
	if err != nil {
		return nil, &Error{ID: r.ID, Op: "burying", Err: err}
	}
	return b, nil
}

func (b *Burial) write(ctx context.Context, data []byte, revision int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultStoreTimeout)
	defer cancel()
	revision, err := b.store.Update(ctx, b.record.ID, data, revision)
	return revision, timedOut(err)
}

// ID returns the DEK's.
func (b *Burial) ID() envelope.ID { return b.record.ID }

// Release gives the claim back: the record is as it was before. If that fails the claim
// ends by itself.
func (b *Burial) Release(ctx context.Context) error {
	if _, err := b.write(context.WithoutCancel(ctx), b.data, b.revision); err != nil {
		return &Error{ID: b.record.ID, Op: "giving back the claim of", Err: err}
	}
	return nil
}

// buryTries bounds how often a store that does not answer is asked to bury.
const buryTries = 5

// Bury removes the record and leaves a tombstone, after this was written down. A store
// that does not answer is asked again; what is there then says whether it was done. When
// ctx ends it is not asked again, but what was asked is waited for: who does not know that
// the record is gone does not look whether it has to be put back.
func (b *Burial) Bury(ctx context.Context) error {
	now := b.now().UTC().Truncate(time.Second)
	tombstone, err := (&Tombstone{ID: b.record.ID, Keyring: b.record.Keyring, Buried: now}).Marshal()
	if err == nil {
		err = b.audit(EventBury, "gc")
	}
	if err != nil {
		return &Error{ID: b.record.ID, Op: "burying", Err: err}
	}
	for try := range buryTries {
		err = b.bury(context.WithoutCancel(ctx), tombstone)
		if err == nil || try > 0 && errors.Is(err, ErrTombstoned) { // by the try before
			return nil
		}
		if !errors.Is(err, ErrStoreUnavailable) || ctx.Err() != nil {
			break
		}
	}
	return &Error{ID: b.record.ID, Op: "burying", Err: err}
}

func (b *Burial) bury(ctx context.Context, tombstone []byte) error {
	ctx, cancel := context.WithTimeout(ctx, DefaultStoreTimeout)
	defer cancel()
	return timedOut(b.store.Bury(ctx, b.record.ID, tombstone, b.revision))
}

// Undo puts the record back as it was before the claim. What is needed is put back even if
// it cannot be written down: the line of the burial is there.
func (b *Burial) Undo(ctx context.Context) error {
	_ = b.audit(EventImport, "undo gc")
	var err error
	for range buryTries {
		if err = b.exhume(context.WithoutCancel(ctx)); !errors.Is(err, ErrStoreUnavailable) {
			break
		}
	}
	if err != nil && !errors.Is(err, ErrExists) { // somebody else put it back
		return &Error{ID: b.record.ID, Op: "putting back", Err: err}
	}
	return nil
}

func (b *Burial) exhume(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, DefaultStoreTimeout)
	defer cancel()
	_, err := b.store.Exhume(ctx, b.record.ID, b.data)
	return timedOut(err)
}

func (b *Burial) audit(kind EventKind, why string) error {
	w := b.record.Wrappings[0]
	if err := b.auditor.Audit(Event{Kind: kind, DEK: b.record.ID, KEK: w.KEK, Version: w.Version, Why: why}); err != nil {
		return fmt.Errorf("writing it down: %w", err)
	}
	return nil
}
