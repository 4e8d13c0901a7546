package dek

import (
	"fmt"
	"slices"
	"time"
)

// Set names the KEKs that the DEKs of a rule are wrapped by.
type Set struct {
	KEK      string
	Recovery []string // those that can open in its stead
}

// names returns the KEKs of a set.
func (s Set) names() []string { return append([]string{s.KEK}, s.Recovery...) }

// view is what this process knows of a KEK's versions. Versions have no order of their
// own: which one is newer is known only from when they were the current one.
type view struct {
	version string
	since   time.Time // when version was believed first, or the KEK came into a Set
	seen    time.Time // when the KEK last said so
	past    []string  // versions that were the current one before, in this process's life
}

// policy is everything that decides what is to be done to a record.
type policy struct {
	sets  []Set
	views map[string]view // of the KEKs that answered at least once
	lag   time.Duration   // see Config.RotateLag
	// asked says that a person asked for it, after all views were taken.
	asked bool
	// drop is a KEK all of whose wrappings a person wants to be removed; may be "".
	drop string
	// keeps reports a wrapping that was found not to be removable.
	keeps func(r *Record, w *Wrapping) bool
}

// plan is what is to be done to a record.
type plan struct {
	add  []string   // KEKs, in the order of the Set, that are to wrap by their version
	drop []Wrapping // wrappings that are to go
	// evidence are, for each KEK in add, those of which one has to give the DEK, since
	// their wrappings say that the KEK's rules are the record's; none if that is sure.
	evidence map[string][]string
	// missing are the KEKs of the record's Set that do not wrap it, those in add
	// included. Neither an older version nor a newer one is missing.
	missing []string
	older   int // wrappings by versions of the Set's KEKs that are superseded
	current int // wrappings by the versions that are the current ones
	// homeless says that no Set is the record's.
	homeless bool
}

func (p *plan) empty() bool { return len(p.add) == 0 && len(p.drop) == 0 }

// without returns what of a plan can be done without some KEKs.
func (p plan) without(down func(name string) bool) plan {
	p.add = slices.DeleteFunc(slices.Clone(p.add), down)
	p.drop = slices.DeleteFunc(slices.Clone(p.drop), func(w Wrapping) bool { return down(w.KEK) })
	return p
}

// plan says what is to be done to a record. It depends on nothing but its arguments.
func (p *policy) plan(r *Record) plan {
	targets := p.targets(r)
	out := plan{homeless: len(targets) == 0, evidence: make(map[string][]string)}
	for _, t := range targets {
		if t.kek != p.drop {
			out.evidence[t.kek] = t.evidence
			p.planKEK(&out, r, t.kek)
		}
	}
	for _, w := range r.Wrappings {
		if p.drop != "" && w.KEK == p.drop {
			out.drop = append(out.drop, w)
		}
	}
	return out
}

// planKEK adds to a plan what is to be done about one KEK.
func (p *policy) planKEK(out *plan, r *Record, name string) {
	v, known := p.views[name]
	var others []Wrapping
	has, any := false, false
	for _, w := range r.Wrappings {
		switch {
		case w.KEK != name:
		case known && w.Version == v.version:
			has, any = true, true
			out.current++
		default:
			any = true
			others = append(others, w)
		}
	}
	if !any {
		out.missing = append(out.missing, name)
	}
	if !known {
		return
	}
	superseded := true
	for _, w := range others {
		if !p.supersedes(v, r, &w) {
			superseded = false
			continue
		}
		out.older++
	}
	switch {
	case !has && (superseded || p.asked) && !p.undoes(v, r, name, any):
		out.add = append(out.add, name)
	case !has:
		return
	}
	for _, w := range others {
		if p.supersedes(v, r, &w) && !p.returned(r, &w) && !p.keeps(r, &w) {
			out.drop = append(out.drop, w)
		}
	}
}

// supersedes reports whether the version of a view was certainly the KEK's current one
// later than the version of a wrapping was.
//
// That is so if this process saw the one follow the other. It is also so if the view is
// not older than the wrapping by more than a view can be wrong: who wrapped at a time T
// believed the wrapping's version then, so that it was the current one at T or before;
// what has been believed from before until now, more than the lag after T, was the
// current one after T. For a person's order that is judged by the answer that the KEK
// gave to it, unless the record dropped that version once: then the KEK may be behind where the
// person asks, and both stay.
func (p *policy) supersedes(v view, r *Record, w *Wrapping) bool {
	if slices.Contains(v.past, w.Version) {
		return true
	}
	wrapped := w.when(r)
	if p.asked {
		return !wrapped.After(v.seen) && !slices.ContainsFunc(r.Dropped, func(d Dropped) bool { return d.KEK == w.KEK && d.Version == v.version })
	}
	return v.seen.Sub(v.since) >= p.lag && v.seen.Sub(wrapped) >= p.lag
}

// undoes reports whether wrapping a record by a view would undo what another process
// did: it dropped just that later than this process came to its view. A person may.
func (p *policy) undoes(v view, r *Record, name string, any bool) bool {
	return !p.asked && slices.ContainsFunc(r.Dropped, func(d Dropped) bool {
		return d.KEK == name && (d.Version == v.version || !any) && !d.At.Before(v.since.Truncate(time.Second))
	})
}

// returned reports whether a wrapping was dropped once and put back, since somebody
// needs it. Only a person drops it again.
func (p *policy) returned(r *Record, w *Wrapping) bool {
	return !p.asked && slices.ContainsFunc(r.Dropped, func(d Dropped) bool { return d.KEK == w.KEK && d.Version == w.Version })
}

// when returns when a wrapping was made.
func (w *Wrapping) when(r *Record) time.Time {
	if w.Wrapped.IsZero() {
		return r.Created
	}
	return w.Wrapped
}

// unique removes repetitions and keeps the order.
func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// WrapBy says by which KEKs the records of the keyring are to be wrapped from now on:
// those of all rules. Run then rewraps the records of which that is not true. Until
// WrapBy is called nothing is rewrapped. The error says that a KEK is not configured.
func (m *Manager) WrapBy(sets ...Set) error {
	names := make(map[string]bool)
	for _, s := range sets {
		for _, name := range s.names() {
			if m.wraps.keks[name] == nil {
				return fmt.Errorf("choosing KEKs: KEK %q is not configured", name)
			}
			names[name] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets = slices.Clone(sets)
	now := m.config.Now()
	for name := range names {
		if _, ok := m.since[name]; !ok {
			m.since[name] = now
		}
	}
	for name := range m.since {
		if !names[name] {
			delete(m.since, name)
		}
	}
	select {
	case m.asking <- struct{}{}:
	default:
	}
	return nil
}

// see takes in which version a KEK has. The caller holds mu.
func (m *Manager) see(name, version string) {
	now := m.config.Now()
	v := m.views[name]
	switch {
	case v == nil:
		m.views[name] = &view{version: version, since: now, seen: now}
		m.log.Info("a KEK's version is followed", "kek", name, "keyVersion", version)
		return
	case v.version != version:
		v.past = slices.DeleteFunc(append(v.past, v.version), func(past string) bool { return past == version })
		if len(v.past) > maxPast {
			v.past = v.past[1:]
		}
		v.version, v.since = version, now
		m.wakeRotation()
	}
	v.seen = now
}

// maxPast bounds how many versions of a KEK are remembered.
const maxPast = 64

// policy returns what decides now. The caller holds mu.
func (m *Manager) policy() *policy {
	p := &policy{sets: m.sets, views: make(map[string]view), lag: m.config.RotateLag}
	for name, v := range m.views {
		of := *v
		of.past = slices.Clone(v.past)
		if since, ok := m.since[name]; ok && since.After(of.since) {
			of.since = since
		}
		p.views[name] = of
	}
	now := m.config.Now()
	kept := make(map[string]bool)
	for key, until := range m.kept {
		if now.Before(until) {
			kept[key] = true
		} else {
			delete(m.kept, key)
		}
	}
	p.keeps = func(r *Record, w *Wrapping) bool { return kept[keptKey(r, w)] }
	return p
}

func keptKey(r *Record, w *Wrapping) string {
	return r.ID.String() + "\x00" + w.KEK + "\x00" + w.Version
}
