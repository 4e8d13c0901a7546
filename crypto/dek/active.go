package dek

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// active is a DEK of this process's making.
type active struct {
	key       *envelope.Key
	sealer    *Sealer
	entry     *entry
	sealUntil int64 // nanoseconds since 1970
	renewAt   int64 // when another DEK is made ahead of need
	limit     int64 // how many seals are allowed
	ahead     int64 // at which seal another DEK is made ahead of need

	versions map[string]string // the KEKs' versions that wrap the DEK
	madeFor  map[string]string // the KEKs' versions that were the reason to make it
	// stale says that a KEK has another version by now.
	stale atomic.Bool
	// halted is why it may not seal, nil if it may; see judge. The Manager's mu guards it.
	halted error

	_     [64]byte // keeps what is only read off the counter's cache line
	seals atomic.Int64
}

// newActive makes a DEK ready to become the one that seals. The caller holds mu.
func (s *Sealer) newActive(f *fresh) *active {
	c := &s.m.config
	a := &active{
		key: f.key, sealer: s, sealUntil: f.record.SealUntil.UnixNano(),
		limit: c.MaxSeals, ahead: c.MaxSeals - c.MaxSeals/16,
		versions: make(map[string]string), madeFor: s.wanted,
	}
	a.renewAt = a.sealUntil - int64(min(c.Lifetime/10, 24*time.Hour))
	for _, w := range f.record.Wrappings {
		a.versions[w.KEK] = w.Version
	}
	a.entry = &entry{id: f.record.ID, record: f.record, data: f.data, state: pending, active: a, proved: slices.Clone(f.record.Wrappings)}
	return a
}

// spent reports whether a DEK cannot seal any more.
func (a *active) spent(now int64) bool { return now >= a.sealUntil || a.seals.Load() >= a.limit }

// due reports whether it is time for another DEK.
func (a *active) due(now int64) bool {
	return a.spent(now) || now >= a.renewAt || a.seals.Load() >= a.ahead || a.stale.Load()
}

// activate lets a DEK seal whose record is in the store. If it was the candidate, it
// takes the place of the one before. The caller holds mu.
func (m *Manager) activate(a *active) {
	s := a.sealer
	if s.candidate == a {
		s.candidate = nil
	}
	if s.current != a {
		if s.current != nil {
			s.current.entry.active = nil
		}
		s.current = a
		m.cache.add(a.key)
	}
	s.demanded, s.failure = false, nil
	if a.halted == nil {
		s.live.Store(a)
	}
}

// suspend stops an entry's DEK from sealing until its record is settled. The caller
// holds mu.
func (m *Manager) suspend(e *entry) {
	if e.active != nil && e.active.sealer.current == e.active {
		e.active.sealer.live.Store(nil)
	}
}

// retire stops an entry's DEK from sealing for good. The caller holds mu.
func (m *Manager) retire(e *entry) {
	if e.active == nil {
		return
	}
	m.suspend(e)
	s := e.active.sealer
	if s.current == e.active {
		s.current = nil
	}
	if s.candidate == e.active {
		s.candidate = nil
	}
	e.active = nil
}

// discard drops a candidate. If its record was stored after all, nothing was sealed
// under it. The caller holds mu.
func (m *Manager) discard(s *Sealer) {
	e := s.candidate.entry
	m.retire(e)
	if e.state == pending && m.known[e.id] == e {
		delete(m.known, e.id)
	}
}
