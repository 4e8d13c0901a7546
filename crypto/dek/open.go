package dek

import (
	"bytes"
	"context"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// refusalOfNoAnswer is how long a KEK that did not answer is not asked for the same
// thing again, at most.
const refusalOfNoAnswer = time.Second

// TryOpen returns the DEK to open with if it is at hand. It never waits, takes no lock
// and does not allocate. If it returns false, OpenKey gets the DEK.
func (m *Manager) TryOpen(id envelope.ID) (*envelope.Key, bool) {
	key, ok := m.cache.get(id)
	if ok {
		m.obs.CacheHit()
	}
	return key, ok
}

// OpenKey returns the DEK to open with. If it is not at hand, its record is looked up,
// linearizably if this process does not know it, and unwrapped by any of its KEKs. That
// is done once for all who wait, and goes on when ctx ends.
//
// The error is ctx's, or an *Error whose cause is ErrUnknownDEK, ErrTombstoned,
// ErrBadRecord, ErrNoKEK, ErrStoreUnavailable, another of the store's, or a KEK's
// (kek.ClassOf; it denies only if all KEKs of the record do; ErrMismatch is of class
// Corrupt). After a failure OpenKey fails the same way for a moment without asking.
func (m *Manager) OpenKey(ctx context.Context, id envelope.ID) (*envelope.Key, error) {
	if key, ok := m.TryOpen(id); ok {
		return key, nil
	}
	m.obs.CacheMiss()
	m.mu.Lock()
	err := m.refusals.get(id, m.clock())
	m.mu.Unlock()
	if err != nil {
		return nil, opening(id, err)
	}
	key, err := m.opening.start(id, func(ctx context.Context) (*envelope.Key, error) { return m.open(ctx, id) }).wait(ctx)
	if err != nil {
		return nil, opening(id, err)
	}
	return key, nil
}

// open finds and unwraps a DEK. It is run through opening, one at a time for each id.
func (m *Manager) open(ctx context.Context, id envelope.ID) (*envelope.Key, error) {
	if key, ok := m.cache.get(id); ok {
		return key, nil
	}
	key, err := m.find(kek.WithWhy(ctx, kek.WhyCacheMiss), id)
	if err != nil {
		if !ofStore(err) {
			m.mu.Lock()
			m.refusals.put(id, err, m.clock(), m.pause(err))
			m.mu.Unlock()
		}
		return nil, err
	}
	m.cache.add(key)
	return key, nil
}

// find opens the record that this process knows. If there is none, or it does not
// open, it opens the one that the store has: a KEK may have been rotated since.
func (m *Manager) find(ctx context.Context, id envelope.ID) (*envelope.Key, error) {
	m.mu.Lock()
	var known *Record
	if e := m.known[id]; e != nil {
		known = e.record
	}
	m.mu.Unlock()
	if known == nil {
		record, err := m.lookup(ctx, id)
		if err != nil {
			return nil, err
		}
		key, _, err := m.wraps.open(ctx, record)
		return key, err
	}
	if key, ok := m.openLater(ctx, id); ok {
		return key, nil
	}
	key, _, err := m.wraps.open(ctx, known)
	if err == nil {
		return key, nil
	}
	stored, errStore := m.lookup(ctx, id)
	if errStore != nil || sameRecord(stored, known) {
		return nil, err
	}
	key, _, err = m.wraps.open(ctx, stored)
	return key, err
}

func sameRecord(a, b *Record) bool {
	x, errX := a.Marshal()
	y, errY := b.Marshal()
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// pause is how long an error is remembered.
func (m *Manager) pause(err error) time.Duration {
	if passing(err) {
		return min(refusalOfNoAnswer, m.config.RefusalTime)
	}
	return m.config.RefusalTime
}
