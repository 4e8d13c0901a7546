package dek

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Waits of Run: between two tries of something that failed, doubled each time.
const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
)

// Run keeps the Manager up with the store and the KEKs until ctx ends, and returns nil
// then. It follows the store's changes and reads everything again each Interval; puts
// back records that the store lost, and proves those that others rewrapped; asks the
// KEKs of DEKs that seal for their versions each Interval, and makes another DEK when
// one has changed; makes another DEK somewhat before the last one is used up; rewraps
// records that are not wrapped as WrapBy says; and checks the KEKs each CheckInterval,
// and stops using DEKs whose KEKs say no or are silent for too long. It is called once.
func (m *Manager) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("running keyring: it was run before")
	}
	var wg sync.WaitGroup
	wg.Go(func() { m.watch(ctx) })
	wg.Go(func() { m.mendAll(ctx, m.unsettle, false) })
	wg.Go(func() { m.mendAll(ctx, m.unproven, true) })
	wg.Go(func() { m.poll(ctx) })
	wg.Go(func() { m.rotate(ctx) })
	wg.Go(func() { m.checkAll(ctx) })
	wg.Wait()
	return nil
}

// watch follows the store.
func (m *Manager) watch(ctx context.Context) {
	wait := retryFirst
	for {
		began := time.Now()
		err := m.store.Watch(ctx, m.resync, m.apply)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > retryLast {
			wait = retryFirst
		}
		m.log.Warn("following the keyring's store failed, it goes on from what the store has then", "error", err)
		if !sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, retryLast)
	}
}

// mendAll mends records when it is woken: those that have to be proved, or those that
// have to be put back. The former wait for KEKs, and nothing is put back behind them.
func (m *Manager) mendAll(ctx context.Context, wake chan struct{}, unproved bool) {
	wait := retryFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		if m.settleAll(ctx, unproved) {
			wait = retryFirst
			continue
		}
		if !sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, retryLast)
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// poll does what is done each Interval, and makes DEKs ahead of need.
func (m *Manager) poll(ctx context.Context) {
	ticker := time.NewTicker(m.config.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.renewal:
		case <-m.asking:
			m.askVersions(ctx)
			m.wakeRotation()
		case <-ticker.C:
			m.wakeWatch()
			m.askVersions(ctx)
			m.proveLater()
			m.wakeRotation()
		}
		m.renewAhead()
	}
}

// askVersions asks the KEKs of DEKs that seal, or will, and those that records are to be
// wrapped by, for their versions.
func (m *Manager) askVersions(ctx context.Context) {
	var wg sync.WaitGroup
	for _, h := range m.inUse() {
		wg.Go(func() {
			version, err := m.wraps.version(ctx, h)
			if err != nil {
				m.log.Debug("asking for a KEK's version failed", "kek", h.name, "error", err)
				return
			}
			m.follow(h.name, version)
		})
	}
	wg.Wait()
}

// inUse returns the KEKs that askVersions asks.
func (m *Manager) inUse() []*holder {
	m.mu.Lock()
	defer m.mu.Unlock()
	var holders []*holder
	for name := range m.since {
		holders = append(holders, m.wraps.keks[name])
	}
	for _, s := range m.used() {
		if s.current == nil && s.candidate == nil {
			continue
		}
		for _, name := range s.keks {
			if h := m.wraps.keks[name]; !slices.Contains(holders, h) {
				holders = append(holders, h)
			}
		}
	}
	return holders
}

// follow takes in a KEK's version: DEKs that it does not wrap are to be replaced, once
// for each version, so that a KEK that says one thing and does another does not make
// the keyring grow.
func (m *Manager) follow(kekName, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.see(kekName, version)
	for _, s := range m.sealers {
		if !slices.Contains(s.keks, kekName) {
			continue
		}
		for _, a := range []*active{s.current, s.candidate} {
			if a == nil || a.versions[kekName] == version || a.madeFor[kekName] == version {
				continue
			}
			if !a.stale.Swap(true) {
				m.log.Info("a KEK has another version, another DEK will seal", "kek", kekName, "keyVersion", version, "dek", a.entry.id.String())
			}
			s.wanted[kekName] = version
		}
	}
}

// renewAhead begins to make DEKs in place of those that are to be replaced. One that
// sealed nothing, or is not in use, is not replaced until somebody wants to seal.
func (m *Manager) renewAhead() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sealers {
		switch a := s.current; {
		case a == nil || !a.due(m.clock()):
		case a.seals.Load() == 0 || s.unused:
			m.retire(a.entry)
		default:
			m.sealing.start(s, s.renewAhead)
		}
	}
}

func (m *Manager) wakeWatch() {
	select {
	case m.resync <- struct{}{}:
	default:
	}
}

func (m *Manager) wakeRenewal() {
	select {
	case m.renewal <- struct{}{}:
	default:
	}
}

// sleep waits for about d, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
