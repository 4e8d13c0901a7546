package dek

import "slices"

// target is a KEK that a record is to be wrapped by.
type target struct {
	kek string
	// evidence are the KEKs whose wrappings say so. One of them has to give the DEK before
	// the KEK wraps it, since whoever writes to the store can make up a wrapping. None:
	// there is nothing to be told apart.
	evidence []string
}

// group is Sets with the same KEK, which count as one.
type group struct {
	kek      string
	recovery []string
}

// groups returns the Sets in groups.
func (p *policy) groups() []group {
	var all []group
	for _, s := range p.sets {
		at := slices.IndexFunc(all, func(g group) bool { return g.kek == s.KEK })
		if at < 0 {
			at, all = len(all), append(all, group{kek: s.KEK})
		}
		all[at].recovery = append(all[at].recovery, s.Recovery...)
	}
	return all
}

// names reports whether a group has a KEK, for whatever.
func (g *group) names(name string) bool { return g.kek == name || slices.Contains(g.recovery, name) }

// targets returns the KEKs that a record is to be wrapped by. A record does not say which
// rule it was made for. If all rules have the same KEK, it was made for them, or for those
// that had another KEK in its place. Else its rules are those whose KEK wraps it; if there
// are none, those of which a KEK for recovery does that no other rules have. So a DEK never
// gets a wrapping by a KEK of rules that it has nothing to do with, which would let others
// open it: rather it gets none.
func (p *policy) targets(r *Record) []target {
	groups := p.groups()
	if len(groups) == 1 {
		return groups[0].targets(nil, nil)
	}
	var its []target
	for _, g := range groups {
		if p.wraps(r, g.kek) {
			its = g.targets(its, []string{g.kek})
		}
	}
	if len(its) > 0 {
		return its
	}
	for i, g := range groups {
		var evidence []string
		for _, name := range g.recovery {
			others := slices.Delete(slices.Clone(groups), i, i+1)
			if p.wraps(r, name) && !slices.ContainsFunc(others, func(o group) bool { return o.names(name) }) {
				evidence = append(evidence, name)
			}
		}
		if len(evidence) > 0 {
			its = g.targets(its, evidence)
		}
	}
	return its
}

// wraps reports whether a KEK wraps a record by a wrapping that was not found to be none.
func (p *policy) wraps(r *Record, name string) bool {
	return slices.ContainsFunc(r.Wrappings, func(w Wrapping) bool { return w.KEK == name && !p.keeps(r, &w) })
}

// targets adds a group's KEKs to targets, each once.
func (g *group) targets(all []target, evidence []string) []target {
	for _, name := range append([]string{g.kek}, g.recovery...) {
		at := slices.IndexFunc(all, func(t target) bool { return t.kek == name })
		if at < 0 {
			at, all = len(all), append(all, target{kek: name})
		}
		for _, e := range evidence {
			if !slices.Contains(all[at].evidence, e) {
				all[at].evidence = append(all[at].evidence, e)
			}
		}
	}
	return all
}
