package dek

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// maxSettleTries bounds how often one call mends a record that is broken again at
// once. Run tries again later.
const maxSettleTries = 8

var errGoneAgain = fmt.Errorf("%w: the record is gone again as soon as it is put back", ErrStoreUnavailable)

// Restore puts back the record that recordKey names, of which somebody saw that it is
// missing, and returns once the store has it. The DEK is not sealed with meanwhile.
// The record is created where there is none and never written over another.
//
// The error is ErrTombstoned if the record was removed for good: its DEK is not sealed
// with again. It is ErrUnknownDEK if this process does not know the record.
func (m *Manager) Restore(ctx context.Context, recordKey []byte) error {
	m.mu.Lock()
	var e *entry
	for id, known := range m.known {
		if string(m.store.RecordKey(id)) == string(recordKey) {
			e = known
		}
	}
	if e != nil && e.state != pending {
		m.lose(e, "not there")
	}
	m.mu.Unlock()
	if e == nil {
		return fmt.Errorf("restoring record %q: %w", recordKey, ErrUnknownDEK)
	}
	return m.settle(ctx, e)
}

// settle waits until the store has an entry's record.
func (m *Manager) settle(ctx context.Context, e *entry) error {
	for range maxSettleTries {
		flight := m.settling.start(e.id, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, m.mend(ctx, e)
		})
		if _, err := flight.wait(ctx); err != nil {
			return &Error{ID: e.id, Op: "storing", Err: err}
		}
		m.mu.Lock()
		done := e.state == present
		m.mu.Unlock()
		if done { // and not lost between the end of a flight that was joined and here
			return nil
		}
	}
	return &Error{ID: e.id, Op: "storing", Err: errGoneAgain}
}

// mend does what an entry's state asks for until the store has its record.
func (m *Manager) mend(ctx context.Context, e *entry) error {
	for range maxSettleTries {
		m.mu.Lock()
		now := *e
		m.mu.Unlock()
		var err error
		switch now.state {
		case present:
			return nil
		case buried:
			return ErrTombstoned
		case pending, lost:
			err = m.create(ctx, e, now)
		case damaged:
			err = m.replace(ctx, e, now)
		case unproved:
			err = m.prove(ctx, e, now)
		}
		if err != nil {
			return err
		}
	}
	return errGoneAgain
}

// create stores an entry's record where there is none. now is the entry as it was
// before.
func (m *Manager) create(ctx context.Context, e *entry, now entry) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	if err := m.auditCreate(now); err != nil {
		return err
	}
	_, err := m.store.Create(ctx, e.id, now.data)
	switch {
	case err == nil:
		m.confirm(e, now)
		return nil
	case errors.Is(err, ErrExists):
		return m.reread(ctx, e, now)
	case errors.Is(err, ErrTombstoned):
		m.entomb(e)
		return nil
	}
	return timedOut(err)
}

// replace puts an entry's record in the place of what is there.
func (m *Manager) replace(ctx context.Context, e *entry, now entry) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	if err := m.auditWrappings(EventRewrap, now.record, now.merged, kek.WhyChangedRecord); err != nil {
		return err
	}
	_, err := m.store.Update(ctx, e.id, now.data, now.badRevision)
	switch {
	case err == nil:
		m.confirm(e, now)
		return nil
	case errors.Is(err, ErrConflict):
		return m.reread(ctx, e, now)
	case errors.Is(err, ErrTombstoned):
		m.entomb(e)
		return nil
	}
	return timedOut(err)
}

// reread reads the record that is in the way.
func (m *Manager) reread(ctx context.Context, e *entry, now entry) error {
	stored, err := m.store.Get(ctx, e.id)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		if e.losses == now.losses {
			m.observe(stored)
		}
		return nil
	case errors.Is(err, ErrNotFound):
		if e.losses == now.losses {
			m.lose(e, "not there")
		}
		return nil
	case errors.Is(err, ErrTombstoned):
		m.bury(e)
		return nil
	}
	return timedOut(err)
}

// confirm says that a write was done, unless the record was lost again since now.
func (m *Manager) confirm(e *entry, now entry) {
	if now.state != pending {
		m.obs.RecordRestored()
		m.log.Info("a record was put back into the keyring's store", "dek", e.id.String())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.losses != now.losses || e.state == buried {
		return
	}
	m.settled(e)
}

func (m *Manager) entomb(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bury(e)
}

// settleAll mends all records that have to be proved, or all others that need it, those
// of DEKs that seal first, and reports whether none is left.
func (m *Manager) settleAll(ctx context.Context, unproved bool) bool {
	done := true
	for _, e := range m.unsettled(unproved) {
		err := m.settle(ctx, e)
		if err != nil && !errors.Is(err, ErrTombstoned) {
			m.complain(ctx, e, err)
			done = false
		}
	}
	return done
}

// complain logs that a record cannot be put right yet, once at Warn.
func (m *Manager) complain(ctx context.Context, e *entry, err error) {
	m.mu.Lock()
	level := slog.LevelWarn
	if e.complained {
		level = slog.LevelDebug
	}
	e.complained = true
	m.mu.Unlock()
	m.log.Log(ctx, level, "a record cannot be put right yet, this is tried again", "dek", e.id.String(), "error", err)
}

// unsettled returns the entries whose record has to be proved, or all others whose
// record is not in the store.
func (m *Manager) unsettled(doubted bool) []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first, rest []*entry
	for _, e := range m.known {
		switch {
		case e.state == present || e.state == pending || (e.state == unproved) != doubted:
		case e.active != nil:
			first = append(first, e)
		default:
			rest = append(rest, e)
		}
	}
	return append(first, rest...)
}

// lookup reads a record that the caller wants to open, and takes it in.
func (m *Manager) lookup(ctx context.Context, id envelope.ID) (*Record, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	stored, err := m.store.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrUnknownDEK
	}
	if err != nil {
		return nil, timedOut(err)
	}
	record, err := m.check(stored)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known[id] == nil {
		m.observe(stored)
	}
	return record, err
}

// timedOut says that a store which did not answer in time does not answer.
func timedOut(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrStoreUnavailable) {
		return fmt.Errorf("%w: %w", ErrStoreUnavailable, err)
	}
	return err
}
