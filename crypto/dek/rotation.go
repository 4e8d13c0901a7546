package dek

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// Bounds of a rotation, for the KEKs' sake.
const (
	rotateWorkers  = 2                      // records that are rewrapped at once
	rotatePace     = 100 * time.Millisecond // between the starts of two records: 30 key operations a second
	rotateFirst    = 2 * time.Second        // before a second try, doubled each time
	rotateLast     = 5 * time.Minute
	busyRetry      = time.Second // before records that others are at are looked at again
	maxBusyRetries = 300         // longer than a claim lasts whose process ended
)

// rotate rewraps records when a policy wants it, until ctx ends.
func (m *Manager) rotate(ctx context.Context) {
	wait := rotateFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.rotation:
		}
		m.mu.Lock()
		p := m.policy()
		todo := m.outdated(p)
		m.mu.Unlock()
		if len(todo) == 0 {
			wait = rotateFirst
			continue
		}
		if !pause(ctx, rand.N(m.config.RotateDelay)) {
			return
		}
		m.mu.Lock()
		p = m.policy()
		todo = m.outdated(p)
		m.mu.Unlock()
		result := m.rewrapAll(ctx, todo, p)
		switch {
		case result.failed > 0:
			if !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, rotateLast)
		case result.busy > 0:
			if !sleep(ctx, busyRetry) {
				return
			}
		default:
			wait = rotateFirst
			continue
		}
		m.wakeRotation()
	}
}

// outdated returns the DEKs whose records a policy wants to change: those that seal here
// first, the others in no order, so that several processes do not meet at each. The
// caller holds mu.
func (m *Manager) outdated(p *policy) []envelope.ID {
	if len(p.sets) == 0 {
		return nil
	}
	var first, rest []envelope.ID
	for id, e := range m.known {
		record := e.record
		if e.later != nil {
			record = e.later
		}
		if e.state != present {
			continue
		}
		if m.config.Now().Before(m.unopened[id]) {
			continue
		}
		if todo := p.plan(record); todo.empty() || !m.wraps.canOpen(record, nobody) {
			continue
		}
		if e.active != nil {
			first = append(first, id)
		} else {
			rest = append(rest, id)
		}
	}
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return append(first, rest...)
}

// canOpen reports whether a KEK of a record is configured, and not down.
func (w *wrapper) canOpen(r *Record, down func(name string) bool) bool {
	return slices.ContainsFunc(r.Wrappings, func(one Wrapping) bool { return w.keks[one.KEK] != nil && !down(one.KEK) })
}

func nobody(string) bool { return false }

// pass is one go over many records.
type pass struct {
	m      *Manager
	p      *policy
	report func(envelope.ID, outcome, *rewrapped, error) // may be nil

	mu      sync.Mutex      // guards all below, and calls of report
	next    time.Time       // when the next record may be begun
	down    map[string]bool // KEKs that failed
	stopped bool            // the store failed
	busyIDs []envelope.ID
	failed  int
	busy    int
}

// rewrapAll rewraps records, a few at once and not too fast. A KEK that failed is not
// asked again before the next pass.
func (m *Manager) rewrapAll(ctx context.Context, ids []envelope.ID, p *policy) *pass {
	run := &pass{m: m, p: p, next: time.Now(), down: map[string]bool{}}
	run.all(ctx, ids)
	return run
}

func (r *pass) all(ctx context.Context, ids []envelope.ID) {
	queue := make(chan envelope.ID)
	var wg sync.WaitGroup
	for range min(rotateWorkers, len(ids)) {
		wg.Go(func() {
			for id := range queue {
				r.one(ctx, id)
			}
		})
	}
	for _, id := range ids {
		queue <- id
	}
	close(queue)
	wg.Wait()
}

// one rewraps one record.
func (r *pass) one(ctx context.Context, id envelope.ID) {
	r.mu.Lock()
	stopped := r.stopped || ctx.Err() != nil
	r.mu.Unlock()
	end, done, err := failed, (*rewrapped)(nil), errStopped
	if !stopped {
		end, done, err = r.m.rewrapRecord(ctx, id, r)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch end {
	case busy:
		r.busy++
		r.busyIDs = append(r.busyIDs, id)
	case failed:
		r.failed++
		r.stopped = r.stopped || ctx.Err() != nil || errors.Is(err, ErrStoreUnavailable)
		for _, e := range kekErrors(err) {
			// A refusal to unwrap says something of one wrapping or version.
			if e.Class != kek.Corrupt && !(e.Op == kek.OpUnwrap && e.Class.Denies()) {
				r.down[e.KEK] = true
			}
		}
		r.m.noteFailure(ctx, id, err)
	}
	if r.report != nil {
		r.report(id, end, done, err)
	}
}

// turn waits until the next record may be begun.
func (r *pass) turn(ctx context.Context) error {
	r.mu.Lock()
	now := time.Now()
	if r.next.Before(now) {
		r.next = now
	}
	wait := r.next.Sub(now)
	r.next = r.next.Add(rotatePace)
	r.mu.Unlock()
	if !pause(ctx, wait) {
		return ctx.Err()
	}
	return nil
}

// isDown reports whether a KEK failed in this pass.
func (r *pass) isDown(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down[name]
}

// kekErrors returns what KEKs said in the tree of an error.
func kekErrors(err error) []*kek.Error {
	switch e := err.(type) {
	case nil:
		return nil
	case *kek.Error:
		return []*kek.Error{e}
	case interface{ Unwrap() error }:
		return kekErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*kek.Error
		for _, one := range e.Unwrap() {
			all = append(all, kekErrors(one)...)
		}
		return all
	}
	return nil
}

// errStopped says that a record was not tried.
var errStopped = errors.New("not tried, since a KEK or the store failed before")

// noteFailure logs and counts why a record could not be rewrapped.
func (m *Manager) noteFailure(ctx context.Context, id envelope.ID, err error) {
	if errors.Is(err, errStopped) || ctx.Err() != nil {
		return
	}
	var class kek.Class
	if _, ok := errors.AsType[*kek.Error](err); ok {
		class = kek.ClassOf(err)
	}
	m.obs.RewrapFailed(class)
	m.log.Log(ctx, slog.LevelWarn, "a DEK could not be rewrapped, this is tried again", "dek", id.String(), "error", err)
}

// pause waits for d, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *Manager) wakeRotation() {
	select {
	case m.rotation <- struct{}{}:
	default:
	}
}

// rotated reports whether a record looks like another one after somebody rewrapped it:
// what is gone was noted as dropped, and something came in its place.
func rotated(before, after *Record) bool {
	gone := missing(after, before)
	return len(gone) > 0 && len(missing(before, after)) > 0 && !slices.ContainsFunc(gone, func(w Wrapping) bool {
		return !slices.ContainsFunc(after.Dropped, func(d Dropped) bool { return d.KEK == w.KEK && d.Version == w.Version })
	})
}

// postpone says that somebody rewrapped a record. Who did that proved it, and each of
// many processes proving it again at once would be many calls to the KEK for nothing:
// it is proved when it is needed, or some time later. What is known is kept until then,
// and is what is put back. If the DEK seals, but is to be replaced since its KEK has
// another version, it is not sealed with again; if it is not to be replaced it is proved
// at once. The caller holds mu.
func (m *Manager) postpone(e *entry, r Stored, record *Record) bool {
	if !rotated(e.record, record) || e.state == unproved {
		return false
	}
	if e.active != nil {
		if !e.active.stale.Load() {
			return false
		}
		m.retire(e)
	}
	if e.later == nil {
		e.postponed = m.clock()
	}
	e.later, e.laterRaw, e.laterRevision = record, r.Data, r.Revision
	e.state = present
	return true
}

// proveLater has the record proved that was postponed for longest, if that is long
// enough ago.
func (m *Manager) proveLater() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var oldest *entry
	for _, e := range m.known {
		if e.later != nil && (oldest == nil || e.postponed < oldest.postponed) {
			oldest = e
		}
	}
	if oldest == nil || m.clock()-oldest.postponed < int64(m.config.RotateLag) {
		return
	}
	e := oldest
	m.doubt(e, Stored{ID: e.id, Data: e.laterRaw, Revision: e.laterRevision}, e.later)
}

// openLater opens the record of an entry that was postponed, and takes it for proved.
func (m *Manager) openLater(ctx context.Context, id envelope.ID) (*envelope.Key, bool) {
	m.mu.Lock()
	var later *Record
	if e := m.known[id]; e != nil {
		later = e.later
	}
	m.mu.Unlock()
	if later == nil {
		return nil, false
	}
	key, wrapped, err := m.wraps.open(ctx, later)
	if err != nil {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.provedLater(id, wrapped)
	return key, true
}

// provedLater takes the record of an entry that was postponed for proved, if a wrapping
// that was just unwrapped is in it. The caller holds mu.
func (m *Manager) provedLater(id envelope.ID, w *Wrapping) {
	e := m.known[id]
	if e == nil || e.later == nil || e.state != present || !proves([]Wrapping{*w}, e.later) {
		return
	}
	e.proved = []Wrapping{*w}
	e.adopt(e.later, e.laterRaw)
	m.settled(e)
}
