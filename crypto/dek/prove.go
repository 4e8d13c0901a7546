package dek

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/etcdseal/etcdseal/kek"
)

// proves reports whether a record has a wrapping that was proved.
func proves(proved []Wrapping, r *Record) bool {
	return slices.ContainsFunc(proved, func(p Wrapping) bool {
		return slices.ContainsFunc(r.Wrappings, func(w Wrapping) bool { return w.same(&p) })
	})
}

// covers reports whether a record has every wrapping of another.
func covers(r, other *Record) bool { return len(missing(r, other)) == 0 }

// missing returns the wrappings of another record that a record does not have.
func missing(r, other *Record) []Wrapping {
	var list []Wrapping
	for _, w := range other.Wrappings {
		if !proves([]Wrapping{w}, r) {
			list = append(list, w)
		}
	}
	return list
}

// doubt says that the store has a record that nothing is known of, and stops its DEK
// from sealing until one of its wrappings was proved. What this process knows is kept
// until then, and is what opens and is put back. The caller holds mu.
func (m *Manager) doubt(e *entry, r Stored, record *Record) {
	e.losses++
	e.doubtful, e.doubtfulRaw, e.badRevision = record, r.Data, r.Revision
	e.later, e.laterRaw = nil, nil
	if e.state == unproved {
		return
	}
	e.state = unproved
	m.suspend(e)
	m.wakeProver()
}

// prove unwraps what is in the store in place of what this process knows. If that
// gives the DEK, it is the record from now on. If not, and what is known does, the known
// wrappings are added to it. It waits for a KEK that does not answer, unless a DEK that
// seals would wait with it: its known wrappings were proved when it was made.
func (m *Manager) prove(ctx context.Context, e *entry, now entry) error {
	ctx = kek.WithWhy(ctx, kek.WhyChangedRecord)
	_, wrapped, err := m.wraps.open(ctx, now.doubtful)
	var errKnown error
	if err != nil && !(passing(err) && now.active != nil) {
		if passing(err) {
			return err
		}
		if _, _, errKnown = m.wraps.open(ctx, now.record); errKnown != nil && passing(errKnown) {
			return errKnown
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case e.losses != now.losses || e.state != unproved:
	case err == nil:
		e.proved = []Wrapping{*wrapped}
		e.adopt(now.doubtful, now.doubtfulRaw)
		m.settled(e)
	case errors.Is(err, ErrNoKEK) && errors.Is(errKnown, ErrNoKEK):
		e.adopt(now.doubtful, now.doubtfulRaw) // others' record, of which they know more
		m.settled(e)
	case errKnown == nil && e.merge(now.doubtful):
		e.state = damaged
		m.obs.RecordLost()
		m.log.Warn("the wrappings of a DEK were replaced in the keyring's store by some that do not give it here; the known ones will be put beside them",
			"dek", e.id.String(), "seals", e.active != nil, "error", err)
	default:
		m.leave(e, now.doubtfulRaw, err)
	}
	return nil
}

// merge makes the entry's record what is in the store with the known wrappings added,
// if there is room: a wrapping that somebody else needs is never removed.
func (e *entry) merge(stored *Record) bool {
	merged := *stored
	known := missing(stored, e.record)
	merged.Wrappings = slices.Concat(known, stored.Wrappings)
	data, err := merged.Marshal()
	if err != nil {
		return false
	}
	e.record, e.data, e.merged = &merged, data, known
	return true
}

// leave leaves a record alone that does not give the DEK, since what this process knows
// does not do so either, or since there is no room for it. The DEK is not sealed with
// again. What is known is kept; the next reading of everything tries again. The caller
// holds mu.
func (m *Manager) leave(e *entry, stored []byte, err error) {
	if !bytes.Equal(e.left, stored) {
		m.log.Warn("the wrappings of a DEK were replaced in the keyring's store so that it cannot be had here",
			"dek", e.id.String(), "seals", e.active != nil, "error", err)
	}
	m.retire(e)
	e.state, e.left = present, stored
	e.doubtful, e.doubtfulRaw = nil, nil
}
