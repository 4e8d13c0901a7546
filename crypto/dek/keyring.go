package dek

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// state is what is known of a record in the store.
type state int

const (
	// pending: the record was made and is not known to be stored.
	pending state = iota
	// present: the store has the record.
	present
	// lost: the store had the record, and has it no more.
	lost
	// damaged: the store has something else in its place.
	damaged
	// unproved: the store has another record than this process knows, one that
	// keeps nothing of which it is known that it gives the DEK.
	unproved
	// buried: there is a tombstone.
	buried
)

// entry is a record that this process knows. The Manager's mu guards it.
type entry struct {
	id     envelope.ID
	record *Record
	data   []byte // the record's encoding, as the store has it or should have it
	state  state
	// losses counts what was seen to be wrong. Who mends a record compares it
	// before and after: what was mended may have been lost again meanwhile.
	losses int

	badRevision int64   // of what is in the store, if damaged or unproved
	doubtful    *Record // what is in the store, if unproved
	doubtfulRaw []byte  // its encoding
	left        []byte  // what was in the store, gave no DEK here, and was left alone

	// later is what is in the store since somebody rewrapped the DEK, if it was not
	// proved here yet: see postpone. Else nil.
	later         *Record
	laterRaw      []byte
	laterRevision int64
	postponed     int64 // when, nanoseconds since 1970

	// active is the DEK if its Sealer uses it, or will use it when the record
	// is stored; else nil. It seals only while the state is present.
	active *active
	proved []Wrapping // those of the record that are known to give the DEK
	// vouched are wrappings that this process proved and is about to write.
	vouched []Wrapping
	// merged are the wrappings that record has beside those in the store; see merge.
	merged []Wrapping
	// complained says that it was logged that the record cannot be put right.
	complained bool
}

// openers returns the entry's record, with the wrappings beside it of the one that is in
// the store and was not proved here yet: any of them may give the DEK.
func (e *entry) openers() *Record {
	if e.later == nil {
		return e.record
	}
	r := *e.record
	r.Wrappings = slices.Concat(e.record.Wrappings, missing(e.record, e.later))
	return &r
}

// apply takes in what the store has. It is called in the order of the changes.
func (m *Manager) apply(c Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := make(map[envelope.ID]bool, len(c.Records)+len(c.Tombstones))
	for _, id := range c.Tombstones {
		there[id] = true
		m.bury(m.known[id])
	}
	for _, r := range c.Records {
		if !there[r.ID] {
			there[r.ID] = true
			m.observe(r)
		}
	}
	for _, id := range c.Gone {
		delete(m.strange, id)
		m.lose(m.known[id], "removed")
	}
	if c.Whole {
		maps.DeleteFunc(m.strange, func(id envelope.ID, _ int64) bool { return !there[id] })
		for id, e := range m.known {
			if !there[id] {
				m.lose(e, "not there")
			}
		}
	}
}

// learn makes a record known. The caller holds mu.
func (m *Manager) learn(e *entry) {
	m.known[e.id] = e
	m.cache.reserve(len(m.known))
}

// observe takes in a record as the store has it. The caller holds mu.
func (m *Manager) observe(r Stored) {
	m.refusals.forget(r.ID)
	e := m.known[r.ID]
	if e != nil && bytes.Equal(e.data, r.Data) {
		m.settled(e)
		return
	}
	if e != nil && e.later != nil && bytes.Equal(e.laterRaw, r.Data) {
		e.laterRevision = r.Revision
		return
	}
	record, err := m.check(r)
	switch {
	case e == nil && err != nil:
		m.logStrange(r, err)
	case e == nil:
		m.learn(&entry{id: r.ID, record: record, data: r.Data, state: present})
	case err != nil:
		m.damage(e, r, err)
	case !proves(e.proved, record) && !proves(e.vouched, record) && !covers(record, e.record):
		if !m.postpone(e, r, record) {
			m.doubt(e, r, record)
		}
	default:
		e.adopt(record, r.Data)
		m.settled(e)
	}
}

// check parses a record and says what is wrong with it.
func (m *Manager) check(r Stored) (*Record, error) { return checkRecord(r, m.config.Keyring) }

func checkRecord(r Stored, keyring string) (*Record, error) {
	record, err := ParseRecord(r.Data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrBadRecord, err)
	case record.ID != r.ID:
		return nil, fmt.Errorf("%w: it is DEK %s's", ErrBadRecord, record.ID)
	case record.Keyring != keyring:
		return nil, fmt.Errorf("%w: it is of the keyring %.64q, this one is %q", ErrBadRecord, record.Keyring, keyring)
	}
	return record, nil
}

// logStrange logs, once for each state of it, a record that is of no use here.
func (m *Manager) logStrange(r Stored, err error) {
	if seen, ok := m.strange[r.ID]; ok && seen == r.Revision {
		return
	}
	m.strange[r.ID] = r.Revision
	m.log.Warn("a record in the keyring's store cannot be used and is left alone", "dek", r.ID.String(), "error", err)
}

// adopt makes what the store has the entry's record.
func (e *entry) adopt(record *Record, data []byte) {
	e.record, e.data = record, data
	e.later, e.laterRaw, e.merged = nil, nil, nil
	for _, w := range e.vouched {
		if !proves([]Wrapping{w}, &Record{Wrappings: e.proved}) {
			e.proved = append(e.proved, w)
		}
	}
	e.proved = slices.DeleteFunc(e.proved, func(p Wrapping) bool { return !proves([]Wrapping{p}, record) })
}

// settled says that the store has the entry's record, and lets its DEK seal. The
// caller holds mu.
func (m *Manager) settled(e *entry) {
	before := e.state
	e.state, e.complained = present, false
	e.doubtful, e.doubtfulRaw, e.left = nil, nil, nil
	e.later, e.laterRaw, e.merged = nil, nil, nil
	if e.active == nil {
		return
	}
	m.activate(e.active)
	if before == pending {
		m.obs.DEKCreated(e.active.sealer.kek)
		m.log.Info("a new DEK seals from now on", "dek", e.id.String(), "kek", e.active.sealer.kek,
			"keyVersion", e.record.Wrappings[0].Version, "sealUntil", e.record.SealUntil)
	} else if before != present {
		m.log.Info("the record of the DEK that seals is back", "dek", e.id.String())
	}
}

// lose says that the store does not have an entry's record, stops its DEK from
// sealing, and has it put back. e may be nil. The caller holds mu.
func (m *Manager) lose(e *entry, how string) {
	if e == nil {
		return
	}
	e.losses++
	if e.state == pending || e.state == lost {
		return
	}
	e.state = lost
	e.doubtful, e.doubtfulRaw = nil, nil
	e.later, e.laterRaw = nil, nil
	m.unwell(e)
	m.log.Warn("a record is gone from the keyring's store and will be put back", "dek", e.id.String(), "how", how, "seals", e.active != nil)
}

// damage says that the store has something else in place of an entry's record. If it
// claims to be of a newer format, a newer etcdseal wrote it: then it is left alone, and
// the DEK not sealed with again. The caller holds mu.
func (m *Manager) damage(e *entry, r Stored, err error) {
	if newer, ok := errors.AsType[*RecordVersionError](err); ok && newer.Version > RecordVersion {
		m.retire(e)
		e.state = present
		m.logStrange(r, err)
		return
	}
	e.losses++
	e.badRevision = r.Revision
	if e.state == damaged {
		return
	}
	e.state = damaged
	e.later, e.laterRaw = nil, nil
	m.unwell(e)
	m.log.Warn("a record was overwritten in the keyring's store and will be put back", "dek", e.id.String(), "error", err)
}

// unwell stops an entry's DEK from sealing and has Run mend its record. The caller
// holds mu.
func (m *Manager) unwell(e *entry) {
	m.suspend(e)
	m.obs.RecordLost()
	m.wakeSettler()
}

// bury says that there is a tombstone: the record is forgotten and its DEK never
// sealed with again. It is not dropped from the cache, where nothing needs it any
// more. e may be nil. The caller holds mu.
func (m *Manager) bury(e *entry) {
	if e == nil {
		return
	}
	e.losses++
	e.state = buried
	m.retire(e)
	if m.known[e.id] == e {
		delete(m.known, e.id)
	}
	m.log.Info("a record was removed from the keyring for good", "dek", e.id.String())
}

func (m *Manager) wakeSettler() {
	select {
	case m.unsettle <- struct{}{}:
	default:
	}
}

func (m *Manager) wakeProver() {
	select {
	case m.unproven <- struct{}{}:
	default:
	}
}
