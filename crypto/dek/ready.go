package dek

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// errSuspended says why a Sealer cannot seal while its DEK's record is being mended.
var errSuspended = fmt.Errorf("%w: the record of the DEK that seals is not in it as it should be", ErrStoreUnavailable)

// Use says which Sealers are in use from now on; until it is called, all are. The others
// go on to work, for calls that have begun with them, but Ready and Sealing pass over
// them, and no DEK is made for them ahead of need.
func (m *Manager) Use(sealers ...*Sealer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sealers {
		s.unused = !slices.Contains(sealers, s)
	}
}

// used returns the Sealers that are in use, by their KEKs. The caller holds mu.
func (m *Manager) used() []*Sealer {
	var used []*Sealer
	for _, set := range slices.Sorted(maps.Keys(m.sealers)) {
		if s := m.sealers[set]; !s.unused {
			used = append(used, s)
		}
	}
	return used
}

// SealerState says whether a Sealer can seal.
type SealerState struct {
	KEK string // the name of the Sealer's KEK, without those for recovery
	// Err is nil if the Sealer has a DEK that seals, or nothing is known to be
	// in the way of one. Else it is what Key or Ready last failed with.
	Err error
}

// Sealing returns what is known of the Sealers in use. It waits for nothing.
func (m *Manager) Sealing() []SealerState {
	m.mu.Lock()
	defer m.mu.Unlock()
	var states []SealerState
	for _, s := range m.used() {
		state := SealerState{KEK: s.kek}
		switch {
		case s.halted() != nil:
			state.Err = s.halted()
		case s.sealing() != nil:
		case s.failure != nil:
			state.Err = s.failure
		case s.current != nil && s.live.Load() == nil:
			state.Err = errSuspended
		}
		states = append(states, state)
	}
	return states
}

// Ready reports whether a DEK can be had for each Sealer in use, and what is missing if
// not. With no Sealer it reports whether the store answers.
//
// For a Sealer without a DEK one is made, wrapped and proved, which shows that the KEK
// does its work, and kept: its record is stored at the first seal. So a process that
// seals nothing leaves no record, however often it is started and asked. If a seal failed
// since the record could not be stored, Ready tries to store it.
func (m *Manager) Ready(ctx context.Context) error {
	m.mu.Lock()
	sealers := m.used()
	m.mu.Unlock()
	if len(sealers) == 0 {
		return m.answers(ctx)
	}
	var errs []error
	for _, s := range sealers {
		if err := s.ready(ctx); err != nil {
			errs = append(errs, fmt.Errorf("KEK %q: %w", s.kek, err))
		}
	}
	return errors.Join(errs...)
}

// Locate asks the store for an answer, since somebody met an etcd cluster that is not
// ClusterID's: after etcd was restored as another cluster, that is of the old one until
// somebody asks. If the answer is the old one's still, the store connects anew and is asked
// again.
func (m *Manager) Locate(ctx context.Context, met uint64) error {
	if err := m.answers(ctx); err != nil || m.store.ClusterID() == met {
		return err
	}
	store, ok := m.store.(Reconnecter)
	if !ok {
		return nil
	}
	m.log.Info("the keyring connects to etcd anew, since its address leads to another cluster by now")
	store.Reconnect()
	return m.answers(ctx)
}

// answers reports whether the store answers.
func (m *Manager) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	return timedOut(m.store.Ping(ctx))
}

// halted returns why the Sealer's DEK may not seal, nil if it may or there is none. The
// caller holds the Manager's mu.
func (s *Sealer) halted() error {
	switch {
	case s.current != nil:
		return s.current.halted
	case s.candidate != nil:
		return s.candidate.halted
	}
	return nil
}

// sealing returns the DEK that seals, nil if there is none.
func (s *Sealer) sealing() *active {
	if a := s.live.Load(); a != nil && !a.spent(s.m.clock()) {
		return a
	}
	return nil
}

// ready makes sure that the Sealer has a DEK that seals and whose record is in the
// store, or a candidate and a store that answers.
func (s *Sealer) ready(ctx context.Context) error {
	if a := s.sealing(); a != nil {
		return s.m.recheck(ctx, a.entry)
	}
	if err := s.remembered(); err != nil {
		return err
	}
	_, err := s.m.sealing.start(s, s.provide).wait(ctx)
	if err != nil {
		return err
	}
	if a := s.sealing(); a != nil {
		return s.m.recheck(ctx, a.entry)
	}
	return s.m.answers(ctx)
}

// provide sees to it that the Sealer has a DEK that can seal, or one whose record will be
// stored when somebody wants to seal. It is run through sealing, one at a time.
func (s *Sealer) provide(ctx context.Context) (none struct{}, err error) {
	a, err := s.revive(ctx)
	s.m.mu.Lock()
	demanded := s.demanded
	s.m.mu.Unlock()
	switch {
	case err != nil || a != nil:
	case demanded:
		err = s.replace(ctx)
	default:
		_, err = s.prepare(ctx)
	}
	return none, s.remember(err)
}

// recheck reads an entry's record, and puts it back if it is not there.
func (m *Manager) recheck(ctx context.Context, e *entry) error {
	m.mu.Lock()
	now := *e
	m.mu.Unlock()
	reading, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	if err := m.reread(reading, e, now); err != nil {
		return err
	}
	return m.settle(ctx, e)
}

// ActiveRecords returns the keys of etcd under which the records of the DEKs that seal
// are, also of those that wait for their record to be put back. It is nil if the store
// is not etcd.
func (m *Manager) ActiveRecords() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys [][]byte
	for _, s := range m.sealers {
		if s.current == nil {
			continue
		}
		if key := m.store.RecordKey(s.current.key.ID()); key != nil {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys
}
