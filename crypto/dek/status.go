package dek

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// Status is what the records of a keyring say about the KEKs that they need.
type Status struct {
	Keyring    string
	Records    int // those that can be read
	Tombstones int
	Versions   []VersionStatus // ordered by KEK, the current version first
	DEKs       []DEKStatus     // of the records that can be read, ordered by id
	// Missing are the records that a KEK of their rules does not wrap.
	Missing []MissingWrapping
	// Leftover are the KEKs that no rule names and that wrap records all the same,
	// ordered by name. Nobody removes their wrappings but by order (RotateOptions.DropKEK).
	Leftover []LeftoverKEK
	// Strange are the records that this configuration cannot make anything of.
	Strange map[envelope.ID]error
	// Unreadable are the records of which no KEK is configured.
	Unreadable []envelope.ID
	// Unopened are the records that no KEK's current version wraps, and that no
	// configured KEK opens: they are denied, or the KEK is another one than it was.
	Unopened []UnopenedRecord
	// KEKs are those that did not say which version they have.
	KEKs []KEKError
}

// DEKStatus is one record.
type DEKStatus struct {
	ID                 envelope.ID
	Created, SealUntil time.Time
	Wrappings          []KEKVersion // in the order of the record
}

func newDEKStatus(r *Record) DEKStatus {
	s := DEKStatus{ID: r.ID, Created: r.Created, SealUntil: r.SealUntil}
	for _, w := range r.Wrappings {
		s.Wrappings = append(s.Wrappings, KEKVersion{w.KEK, w.Version})
	}
	return s
}

// MissingWrapping is a DEK that a KEK of its rules does not wrap.
type MissingWrapping struct {
	ID  envelope.ID
	KEK string
}

// UnopenedRecord is a record of which no wrapping gave the DEK.
type UnopenedRecord struct {
	ID  envelope.ID
	Err error // of all of them
}

// LeftoverKEK is a KEK that wraps records and that no rule names.
type LeftoverKEK struct {
	KEK     string
	Records int // that it wraps
	Alone   int // of these, that no other KEK wraps which is configured
}

// VersionStatus is what one version of a KEK is needed for.
type VersionStatus struct {
	KEK, Version string
	Configured   bool // the KEK is
	Used         bool // a rule names the KEK
	Current      bool // the KEK would wrap by it now
	Records      int  // that it wraps
	Needed       int  // of these, that nothing else opens as far as this configuration goes
	// Until is when the last record stopped to need it: backups of etcd or of the
	// keyring from before need it. Zero while a record needs it, and if that is not
	// known.
	Until time.Time
	// Because are the reasons why it is not safe to disable, none if it is: each of
	// them by itself, in words.
	Because []string
}

// Safe reports whether no record that is in the keyring now needs the version.
func (v *VersionStatus) Safe() bool { return len(v.Because) == 0 }

// Status reads the keyring and asks the KEKs for their versions. Before it calls a version
// safe that is in records, it opens each of them by another wrapping, and it opens those that
// are wrapped by no KEK's current version: so it unwraps nothing once all records are
// rewrapped. The error says that the keyring could not be read.
func (m *Manager) Status(ctx context.Context) (*Status, error) {
	records, err := m.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading keyring: %w", err)
	}
	out := &Status{Keyring: m.config.Keyring, Records: len(records.usable), Tombstones: records.tombstones, Strange: records.strange}
	for _, name := range slices.Sorted(maps.Keys(m.wraps.keks)) {
		version, err := m.wraps.version(ctx, m.wraps.keks[name])
		m.mu.Lock()
		if err != nil {
			delete(m.views, name)
			out.KEKs = append(out.KEKs, KEKError{KEK: name, Err: err})
		} else {
			m.see(name, version)
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	p := m.policy()
	m.mu.Unlock()
	count := counting{
		m: m, p: p, out: out, versions: map[KEKVersion]*VersionStatus{}, used: map[string]bool{}, leftover: map[string]*LeftoverKEK{},
		doubts: map[KEKVersion]*doubt{}, current: map[string]time.Time{},
	}
	for name, v := range p.views {
		count.version(name, v.version).Current = true
	}
	for _, s := range p.sets {
		for _, name := range s.names() {
			count.used[name] = true
		}
	}
	for _, r := range records.usable {
		count.record(r)
	}
	count.prove(kek.WithWhy(ctx, kek.WhyProof), records.usable)
	count.judge()
	return out, nil
}

// counting is the work of Status.
type counting struct {
	m        *Manager
	p        *policy
	out      *Status
	versions map[KEKVersion]*VersionStatus
	used     map[string]bool // KEKs that rules name
	leftover map[string]*LeftoverKEK
	doubts   map[KEKVersion]*doubt
	// current is when a record was first wrapped by the current version of a KEK.
	current map[string]time.Time
}

func (c *counting) version(name, version string) *VersionStatus {
	key := KEKVersion{name, version}
	if c.versions[key] == nil {
		c.versions[key] = &VersionStatus{KEK: name, Version: version, Configured: c.m.wraps.keks[name] != nil}
	}
	return c.versions[key]
}

func (c *counting) record(r *Record) {
	c.out.DEKs = append(c.out.DEKs, newDEKStatus(r))
	if !c.m.wraps.canOpen(r, nobody) {
		c.out.Unreadable = append(c.out.Unreadable, r.ID)
	}
	for _, name := range c.p.plan(r).missing {
		c.out.Missing = append(c.out.Missing, MissingWrapping{r.ID, name})
	}
	seen := map[KEKVersion]bool{}
	for _, w := range r.Wrappings {
		key := KEKVersion{w.KEK, w.Version}
		if seen[key] {
			continue
		}
		seen[key] = true
		v := c.version(w.KEK, w.Version)
		v.Records++
		if first, ok := c.current[w.KEK]; v.Current && (!ok || w.when(r).Before(first)) {
			c.current[w.KEK] = w.when(r)
		}
		if at, ok := c.freed(r, key); ok {
			v.Until = later(v.Until, at)
		} else {
			v.Needed++
		}
	}
	for _, d := range r.Dropped {
		v := c.version(d.KEK, d.Version)
		v.Until = later(v.Until, d.At)
	}
	c.leftovers(r)
}

// leftovers counts the KEKs of a record that no rule names.
func (c *counting) leftovers(r *Record) {
	if len(c.used) == 0 {
		return
	}
	var names []string
	for _, w := range r.Wrappings {
		names = append(names, w.KEK)
	}
	for _, name := range unique(names) {
		if c.used[name] {
			continue
		}
		l := c.leftover[name]
		if l == nil {
			l = &LeftoverKEK{KEK: name}
			c.leftover[name] = l
		}
		l.Records++
		if !slices.ContainsFunc(names, func(o string) bool { return o != name && c.m.wraps.keks[o] != nil }) {
			l.Alone++
		}
	}
}

// freed returns since when a record can be opened without a version of a KEK: by other
// wrappings of configured KEKs.
func (c *counting) freed(r *Record, without KEKVersion) (at time.Time, ok bool) {
	for _, w := range r.Wrappings {
		if (KEKVersion{w.KEK, w.Version}) == without || c.m.wraps.keks[w.KEK] == nil {
			continue
		}
		if when := w.when(r); !ok || when.Before(at) {
			at, ok = when, true
		}
	}
	return at, ok
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Wrapped is how many records one KEK of a Set wraps, and by which versions.
type Wrapped struct {
	KEK     string
	Current int // by the version that this process takes for the current one
	Older   int // by others only
	Missing int // not at all, although it is to
}

// Wrapped counts the records that this process knows, for each KEK of the Sets, by name.
// It waits for nothing.
func (m *Manager) Wrapped() []Wrapped {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := map[string]*Wrapped{}
	for name := range m.since {
		counts[name] = &Wrapped{KEK: name}
	}
	if len(m.sets) == 0 {
		return nil
	}
	p := m.policy()
	for _, e := range m.known {
		if e.state == pending {
			continue
		}
		record := e.record
		if e.later != nil {
			record = e.later
		}
		for _, t := range p.targets(record) {
			count(counts[t.kek], record, p.views[t.kek].version)
		}
	}
	var out []Wrapped
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, *counts[name])
	}
	return out
}

func count(c *Wrapped, r *Record, version string) {
	has := false
	for _, w := range r.Wrappings {
		if w.KEK != c.KEK {
			continue
		}
		if w.Version == version {
			c.Current++
			return
		}
		has = true
	}
	if has {
		c.Older++
	} else {
		c.Missing++
	}
}
