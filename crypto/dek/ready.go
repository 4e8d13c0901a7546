package dek

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Ready reports whether a DEK can be had for each Sealer, and what is missing if not.
// With no Sealer it reports whether the store answers.
//
// For a Sealer without a DEK one is made, wrapped and proved, which shows that the KEK
// does its work, and kept: its record is stored at the first seal. So a process that
// seals nothing leaves no record, however often it is started and asked.
func (m *Manager) Ready(ctx context.Context) error {
	m.mu.Lock()
	sealers := make([]*Sealer, 0, len(m.sealers))
	for _, s := range m.sealers {
		sealers = append(sealers, s)
	}
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

// answers reports whether the store answers.
func (m *Manager) answers(ctx context.Context) error {
	_, err := m.lookup(ctx, envelope.ID{})
	if errors.Is(err, ErrUnknownDEK) {
		return nil
	}
	return err
}

// ready makes sure that the Sealer has a DEK that seals and whose record is in the
// store, or a candidate and a store that answers.
func (s *Sealer) ready(ctx context.Context) error {
	if err := s.remembered(); err != nil {
		return err
	}
	_, err := s.m.sealing.start(s, func(ctx context.Context) (none struct{}, err error) {
		a, err := s.revive(ctx)
		if err == nil && a == nil {
			_, err = s.prepare(ctx)
		}
		return none, s.remember(err)
	}).wait(ctx)
	if err != nil {
		return err
	}
	live := s.live.Load()
	if live == nil {
		return s.m.answers(ctx)
	}
	return s.m.recheck(ctx, live.entry)
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
