package dek

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// Sealer hands out DEKs to seal with that are wrapped by one set of KEKs. There is one
// for each such set. It is safe for concurrent use.
type Sealer struct {
	m    *Manager
	kek  string
	keks []string // kek, then the recovery KEKs

	// live is the DEK that seals: nil if there is none, or while its record
	// is not in the store. Written under the Manager's mu.
	live atomic.Pointer[active]

	// The Manager's mu guards all below.

	current   *active           // the DEK that seals, or will again when its record is mended
	candidate *active           // made and proved, its record not known to be stored
	wanted    map[string]string // the KEKs' versions that another DEK is made for
	demanded  bool              // somebody wanted to seal and the record of a new DEK is not stored yet
	unused    bool              // see Manager.Use
	failure   error             // why no DEK could be had at the last try; nil after one that succeeded
	failedTil int64             // until when nobody tries again, nanoseconds since 1970
}

// Sealer returns the Sealer for a KEK and the KEKs that can open in its stead. The
// order of recovery does not matter. The error says that a KEK is not configured, or
// named twice.
func (m *Manager) Sealer(kekName string, recovery []string) (*Sealer, error) {
	others := slices.Sorted(slices.Values(recovery))
	keks := append([]string{kekName}, others...)
	for i, name := range keks {
		if m.wraps.keks[name] == nil {
			return nil, fmt.Errorf("making sealer: KEK %q is not configured", name)
		}
		if slices.Contains(keks[:i], name) {
			return nil, fmt.Errorf("making sealer: KEK %q is named twice", name)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	set := strings.Join(keks, "\x00")
	s := m.sealers[set]
	if s == nil {
		s = &Sealer{m: m, kek: kekName, keks: keks, wanted: make(map[string]string)}
		m.sealers[set] = s
	}
	return s, nil
}

// TryKey returns the DEK to seal with and counts one seal. It never waits. It returns
// false when a DEK has to be made, or its record put back: then Key does it.
func (s *Sealer) TryKey() (*envelope.Key, bool) {
	a := s.live.Load()
	if a == nil || s.m.clock() >= a.sealUntil {
		return nil, false
	}
	n := a.seals.Add(1)
	if n > a.limit {
		a.seals.Add(-1) // never below what was handed out
		return nil, false
	}
	if n == a.ahead {
		s.m.wakeRenewal()
	}
	return a.key, true
}

// Key returns the DEK to seal with and counts one seal. It waits for as long as ctx
// lasts if one has to be made, stored and proved first. What it started goes on when
// ctx ends, for the others who wait.
//
// The error is a KEK's (kek.ClassOf), ErrStoreUnavailable, another of the store's, or
// ctx's. After a KEK failed, Key fails the same way for a moment without asking it.
func (s *Sealer) Key(ctx context.Context) (*envelope.Key, error) {
	for {
		if key, ok := s.TryKey(); ok {
			return key, nil
		}
		if err := s.remembered(); err != nil {
			return nil, err
		}
		if _, err := s.m.sealing.start(s, s.renew).wait(ctx); err != nil {
			return nil, fmt.Errorf("having a DEK of KEK %q: %w", s.kek, err)
		}
	}
}

// remembered returns why a DEK could not be had a moment ago, if that is not tried again
// yet.
func (s *Sealer) remembered() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.failure == nil || s.m.clock() >= s.failedTil {
		return nil
	}
	return fmt.Errorf("having a DEK of KEK %q: %w", s.kek, s.failure)
}

// renew sees to it that the Sealer has a DEK that can seal. It is run through sealing,
// one at a time.
func (s *Sealer) renew(ctx context.Context) (none struct{}, err error) {
	a, err := s.revive(ctx)
	if err == nil && a == nil {
		err = s.replace(ctx)
	}
	return none, s.remember(err)
}

// renewAhead is renew for a DEK that can seal, but not for long.
func (s *Sealer) renewAhead(ctx context.Context) (none struct{}, err error) {
	a, err := s.revive(ctx)
	if err == nil && (a == nil || a.due(s.m.clock())) {
		err = s.replace(ctx)
	}
	return none, s.remember(err)
}

// replace makes the candidate the DEK that seals.
func (s *Sealer) replace(ctx context.Context) error {
	a, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	s.m.mu.Lock()
	s.demanded = true
	s.m.mu.Unlock()
	return s.m.settle(ctx, a.entry)
}

// revive mends the record of the DEK that sealed last, and returns that DEK if it can
// seal.
func (s *Sealer) revive(ctx context.Context) (*active, error) {
	s.m.mu.Lock()
	a := s.current
	live := s.live.Load() != nil
	var halted error
	if a != nil && a.halted != nil {
		halted = a.halted
		if s.outgrown(a) {
			a = nil
		}
	}
	s.m.mu.Unlock()
	switch {
	case a == nil || a.spent(s.m.clock()):
		return nil, nil
	case halted != nil:
		return nil, halted
	case live:
		return a, nil
	}
	err := s.m.settle(ctx, a.entry)
	if err != nil && !errors.Is(err, ErrTombstoned) {
		return nil, err
	}
	return s.live.Load(), nil
}

// outgrown reports whether a DEK that may not seal is to be replaced: its KEK wraps, by
// another version than the one that was switched off. The caller holds the Manager's mu.
func (s *Sealer) outgrown(a *active) bool {
	return a.stale.Load() && !s.m.health[s.kek].sealing.stops(&s.m.config, s.m.clock())
}

// prepare returns the candidate, and makes one if there is none of use. It fails if the
// candidate may not seal.
func (s *Sealer) prepare(ctx context.Context) (*active, error) {
	m := s.m
	m.mu.Lock()
	if s.candidate != nil && s.candidate.due(m.clock()) {
		m.discard(s)
	}
	a := s.candidate
	var halted error
	if a != nil {
		halted = a.halted
	}
	m.mu.Unlock()
	if a != nil {
		return a, halted
	}
	created := time.Unix(0, m.clock()).UTC().Truncate(time.Second)
	sealUntil := created.Add(m.config.Lifetime).Truncate(time.Second)
	f, err := m.wraps.make(kek.WithWhy(ctx, kek.WhyNewDEK), s.keks, created, sealUntil)
	if err != nil {
		return nil, err
	}
	for _, err := range f.missing {
		m.log.Warn("a new DEK is without a wrapping by a recovery KEK; a running proxy or `etcdseal rotate` adds it", "dek", f.record.ID.String(), "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.candidate = s.newActive(f)
	s.wanted = make(map[string]string)
	m.learn(s.candidate.entry)
	return s.candidate, nil
}

// remember notes how a try to have a DEK ended, and returns err. Unless only the store
// or the caller's end was in the way, it is not tried again for a moment.
func (s *Sealer) remember(err error) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	switch {
	case err == nil:
		s.failure = nil
		return nil
	case errors.Is(err, ErrClosed), errors.Is(err, context.Canceled):
		return err
	}
	if s.failure == nil {
		s.m.log.Warn("no DEK can be had to seal with, this is tried again", "kek", s.kek, "error", err)
	}
	s.failure, s.failedTil = err, 0
	if !ofStore(err) {
		s.failedTil = s.m.clock() + int64(s.m.pause(err))
	}
	return err
}
