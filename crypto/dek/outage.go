package dek

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// judge acts on what the checks showed. A DEK stops sealing when each KEK that wraps it
// denies to wrap or to unwrap, and is forgotten when each has denied to unwrap for
// DeniedGrace; or when they did not answer for OfflineLimit. It seals again when one of
// them is back, or can be opened again. Whatever is done is written down before.
func (m *Manager) judge() {
	m.judging.Lock() // one at a time, so that each change is written down once
	defer m.judging.Unlock()
	halts, drops := m.sentence()
	for _, h := range halts {
		event := Event{Kind: EventDeny, DEK: h.a.entry.id, KEK: h.a.sealer.kek, Version: h.a.versions[h.a.sealer.kek], Why: string(kek.WhyHealthCheck), Class: kek.ClassOf(h.err)}
		if h.err == nil {
			event.Kind = EventRestore
		}
		if err := m.config.Auditor.Audit(event); err != nil && h.err == nil {
			continue // it does not seal yet; the next check tries again
		}
		m.halt(h)
	}
	for id, err := range drops {
		_ = m.config.Auditor.Audit(Event{Kind: EventDrop, DEK: id, Why: string(kek.WhyHealthCheck), Class: kek.ClassOf(err)}) // it is dropped anyway
		m.drop(id, err)
	}
}

// halting says that a DEK is to stop sealing, or is to seal again if there is no error.
type halting struct {
	a   *active
	err error
}

// sentence says what is to be done by what is known now.
func (m *Manager) sentence() (halts []halting, drops map[envelope.ID]error) {
	now := m.clock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sealers {
		for _, a := range []*active{s.current, s.candidate} {
			if a == nil {
				continue
			}
			err := m.each(m.certain(a.entry), func(h *kekHealth, version string) error {
				if h.sealing.stops(&m.config, now) {
					return h.sealing.err
				}
				if v := h.opening[version]; v.stops(&m.config, now) {
					return v.err
				}
				return nil
			})
			if (err == nil) != (a.halted == nil) {
				halts = append(halts, halting{a, err})
			}
		}
	}
	drops = make(map[envelope.ID]error)
	for id := range m.inMemory() {
		e := m.known[id]
		if e == nil {
			delete(m.dropped, id)
			continue
		}
		err := m.each(e.openers(), func(h *kekHealth, version string) error {
			if v := h.opening[version]; v.over(&m.config, now) {
				return v.err
			}
			return nil
		})
		_, cached := (*m.cache.seen.Load())[id]
		switch {
		case err == nil:
			delete(m.dropped, id)
		case cached || e.active != nil:
			drops[id] = err
		}
	}
	return halts, drops
}

// certain returns an entry's record with those wrappings only that are known to give the
// DEK: nobody keeps a DEK sealing by adding others. The caller holds mu.
func (m *Manager) certain(e *entry) *Record {
	r := *e.record
	r.Wrappings = slices.DeleteFunc(slices.Clone(r.Wrappings), func(w Wrapping) bool {
		h := m.health[w.KEK]
		return !slices.ContainsFunc(e.proved, func(p Wrapping) bool { return p.same(&w) }) && (h == nil || !h.tested[testedAs(e.id, &w)])
	})
	return &r
}

// each asks something of each KEK that wraps a DEK here, and returns what it said if
// there are such KEKs and there was an error from all. The caller holds mu.
func (m *Manager) each(r *Record, ask func(h *kekHealth, version string) error) error {
	var errs []error
	for i := range r.Wrappings {
		w := &r.Wrappings[i]
		h := m.health[w.KEK]
		if h == nil {
			continue // not configured: of no help, and no hindrance
		}
		if good, known := h.tested[testedAs(r.ID, w)]; known && !good {
			continue // not a wrapping of this DEK
		}
		err := ask(h, w.Version)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil
	}
	return joinKEKErrors(errs)
}

// halt stops a DEK from sealing, or lets it seal again.
func (m *Manager) halt(c halting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := c.a.sealer
	if s.current != c.a && s.candidate != c.a {
		return
	}
	if c.err != nil {
		c.a.halted = fmt.Errorf("sealing has stopped, and goes on by itself within %s of the KEK's return: %w", m.config.CheckInterval, c.err)
		m.suspend(c.a.entry)
		m.log.Warn("sealing has stopped", "kek", s.kek, "dek", c.a.entry.id.String(), "class", kek.ClassOf(c.err).String(), "error", c.err)
		return
	}
	c.a.halted, s.failure = nil, nil
	if s.current == c.a && c.a.entry.state == present {
		s.live.Store(c.a)
	}
	m.log.Info("sealing goes on", "kek", s.kek, "dek", c.a.entry.id.String())
}

// drop forgets an opened DEK. What seals with it does so no more, and another one has to
// be made afterwards. Keys that calls have at hand are used to their end.
func (m *Manager) drop(id envelope.ID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache.remove(id)
	m.dropped[id] = true
	if e := m.known[id]; e != nil && e.active != nil {
		s := e.active.sealer
		if s.candidate == e.active {
			m.discard(s)
		} else {
			m.retire(e)
		}
		s.failure, s.failedTil = err, 0
	}
	m.log.Warn("an opened DEK was forgotten", "dek", id.String(), "class", kek.ClassOf(err).String(), "error", err)
}

// OpeningDenied returns why DEKs in use cannot be opened any more, or soon cannot, since
// every KEK that wraps them says no; nil if there is none. It waits for nothing.
func (m *Manager) OpeningDenied() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.inMemory() {
		e := m.known[id]
		if e == nil {
			continue
		}
		err := m.each(e.openers(), func(h *kekHealth, version string) error {
			if v := h.opening[version]; v != nil && v.class.Denies() {
				return v.err
			}
			return nil
		})
		if err != nil {
			return &Error{ID: id, Op: "opening", Err: err}
		}
	}
	return nil
}

// KEKHealth is what the checks of a KEK in use showed.
type KEKHealth struct {
	KEK     string
	Sealing Verdict // by the version that wraps now
	Opening Verdict // of the versions in use, the one that fares worst
}

// Verdict is what the checks showed about one use of a KEK.
type Verdict struct {
	// Checked says that the rest means something: the KEK is in use for this, and
	// was checked.
	Checked bool
	// Class is zero if the KEK did what it was asked. A class that denies stays
	// until then, even if the KEK cannot be reached meanwhile.
	Class kek.Class
	// Since is when a check first showed that.
	Since time.Time
	// Version is the KEK's, for opening.
	Version string
}

func (v *verdict) show(version string) Verdict {
	if !v.checked {
		return Verdict{}
	}
	return Verdict{Checked: true, Class: v.class, Since: time.Unix(0, v.since), Version: version}
}

// worse orders verdicts: a no is worse than silence, and silence than success.
func worse(a, b *verdict) int {
	rank := func(v *verdict) int {
		switch {
		case v.class.Denies():
			return 0
		case v.class != 0:
			return 1
		}
		return 2
	}
	return rank(a) - rank(b)
}

// Health returns what is known of the KEKs, by their names. It waits for nothing.
func (m *Manager) Health() []KEKHealth {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []KEKHealth
	for name, h := range m.health {
		state := KEKHealth{KEK: name, Sealing: h.sealing.show("")}
		var worst *verdict
		for version, v := range h.opening {
			if v.checked && (worst == nil || worse(v, worst) < 0) {
				worst, state.Opening = v, v.show(version)
			}
		}
		all = append(all, state)
	}
	slices.SortFunc(all, func(a, b KEKHealth) int { return strings.Compare(a.KEK, b.KEK) })
	return all
}
