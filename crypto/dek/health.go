package dek

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// kekHealth is what the checks of one KEK showed. The Manager's mu guards it, but for
// what says otherwise.
//
// A KEK is checked by what it is for: by wrapping bytes that are no DEK, if a Sealer in
// use needs it, and by unwrapping what it wrapped, with one version at a time if there
// are several. That is two key operations for each check. Sealing and opening are judged
// apart, since a key that has expired still unwraps; opening is judged by version, since
// each can be switched off.
type kekHealth struct {
	holder  *holder // never changes
	sealing verdict
	opening map[string]*verdict // by the versions in use
	chosen  int64               // when what to unwrap was last chosen; before that, since when there is a Manager
	turn    int                 // counts the checks of opening
	last    [2]string           // the versions that were checked last: of those known to give a DEK, and of others
	probe   *kek.Wrapping       // what the last check wrapped
	// tested has the wrappings of DEKs in memory that were unwrapped by a check, and
	// whether they gave the DEK. One that does not counts for nothing: whoever can
	// write to the store must not keep a DEK in use by a wrapping that is none.
	tested map[string]bool
}

// testedAs names a wrapping of a DEK in kekHealth.tested.
func testedAs(id envelope.ID, w *Wrapping) string {
	return string(id[:]) + w.Version + "\x00" + string(w.Ciphertext)
}

// verdict is what checks showed about one use of a KEK.
type verdict struct {
	checked bool
	class   kek.Class // zero: it did what it was asked
	err     error     // what it said, nil for the zero class
	since   int64     // when that class was first seen
	good    int64     // when it last answered; before that, since when it is in use
	asked   int64     // when it was last asked; before that, since when it can be in use
	denied  int64     // if class denies: when it was asked before the first no
}

// take takes in the result of a check. What is not an answer does not take back a no.
func (v *verdict) take(err error, began int64) {
	class := kek.ClassOf(err)
	if v.class.Denies() && err != nil && !class.Denies() {
		return
	}
	if err == nil || class == kek.Corrupt { // which says nothing against the key
		v.good = began
	}
	if class.Denies() && !v.class.Denies() {
		v.denied = v.asked
	}
	v.asked = began
	if !v.checked || class != v.class {
		v.since = began
	}
	v.checked, v.class, v.err = true, class, err
}

// over reports whether what depends on the KEK must not be used any more, at a time.
func (v *verdict) over(c *Config, now int64) bool {
	switch {
	case v == nil || v.class == 0 || v.class == kek.Corrupt:
		return false
	case v.class.Denies():
		return now-v.denied >= int64(c.DeniedGrace) // from before the check that found it
	}
	return v.silent(c, now)
}

// silent reports whether the KEK did not answer for longer than is allowed.
func (v *verdict) silent(c *Config, now int64) bool {
	return v.class != 0 && v.class != kek.Corrupt && c.OfflineLimit > 0 && now-v.good >= int64(c.OfflineLimit)
}

// stops reports whether nothing is to be sealed that depends on the KEK.
func (v *verdict) stops(c *Config, now int64) bool {
	return v != nil && (v.class.Denies() || v.silent(c, now))
}

// newHealth returns the health of all KEKs, of which nothing is known.
func newHealth(w wrapper, now int64) map[string]*kekHealth {
	all := make(map[string]*kekHealth, len(w.keks))
	for name, h := range w.keks {
		all[name] = &kekHealth{holder: h, opening: make(map[string]*verdict), chosen: now}
	}
	return all
}

// checkAll checks all KEKs each CheckInterval until ctx ends, each by itself, so that one
// that hangs delays no other.
func (m *Manager) checkAll(ctx context.Context) {
	var wg sync.WaitGroup
	each := func(do func()) {
		wg.Go(func() {
			ticker := time.NewTicker(m.config.CheckInterval)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
					do()
				}
			}
		})
	}
	each(m.judge)
	for _, h := range m.health {
		each(func() {
			m.examine(kek.WithWhy(ctx, kek.WhyHealthCheck), h)
			m.judge()
		})
	}
	wg.Wait()
}

// examine asks a KEK to wrap and to unwrap, if it is in use.
func (m *Manager) examine(ctx context.Context, h *kekHealth) {
	if m.seals(h) {
		began := m.clock()
		probe, err := m.checkWrap(ctx, h.holder)
		if ctx.Err() != nil {
			return
		}
		m.mu.Lock()
		m.verdict(ctx, h, "sealing", &h.sealing, err, began)
		if err == nil {
			h.probe = &probe
		}
		m.mu.Unlock()
	}
	began := m.clock()
	m.mu.Lock()
	v, unwrap := m.nextOpening(h)
	m.mu.Unlock()
	if unwrap == nil {
		return
	}
	err := unwrap(ctx)
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	m.verdict(ctx, h, "opening", v, err, began)
	m.mu.Unlock()
}

// verdict takes in the result of a check, and logs a change. The caller holds mu.
func (m *Manager) verdict(ctx context.Context, h *kekHealth, use string, v *verdict, err error, began int64) {
	before := v.class
	v.take(err, began)
	switch {
	case v.class == before:
	case v.class == 0:
		m.log.InfoContext(ctx, "a KEK is well again", "kek", h.holder.name, "use", use)
	default:
		m.log.WarnContext(ctx, "a KEK fails its check", "kek", h.holder.name, "use", use, "class", v.class.String(), "error", v.err)
	}
}

// seals reports whether a Sealer in use needs a KEK. If none does, it is forgotten what
// was known of its wrapping.
func (m *Manager) seals(h *kekHealth) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.used() {
		if slices.Contains(s.keks, h.holder.name) {
			return true
		}
	}
	h.sealing, h.probe = verdict{}, nil
	return false
}

// checkWrap has a KEK wrap what is no DEK.
func (m *Manager) checkWrap(ctx context.Context, h *holder) (wrapped kek.Wrapping, err error) {
	probe := make([]byte, kek.DEKSize)
	defer clear(probe)
	rand.Read(probe) // never fails: crypto/rand ends the process instead
	err = m.wraps.call(ctx, h, kek.OpWrap, func(ctx context.Context) (err error) {
		wrapped, err = h.kek.Wrap(ctx, probe)
		return err
	})
	return wrapped, err
}

// nextOpening returns what to unwrap next, and where to note the result; nil if there is
// nothing. It takes the versions in turns. The caller holds mu.
func (m *Manager) nextOpening(h *kekHealth) (*verdict, func(context.Context) error) {
	type use struct {
		id      envelope.ID
		wrapped *Wrapping
	}
	now, before := m.clock(), h.chosen
	h.chosen = now
	uses := make(map[string]use)
	tested, trusted := make(map[string]bool), make(map[string]bool)
	for id := range m.inMemory() {
		e := m.known[id]
		if e == nil {
			continue
		}
		openers := e.openers()
		for i := range openers.Wrappings {
			w := &openers.Wrappings[i]
			if w.KEK != h.holder.name {
				continue
			}
			good, known := h.tested[testedAs(id, w)]
			if known {
				tested[testedAs(id, w)] = good
				trusted[w.Version] = trusted[w.Version] || good
			}
			if _, taken := uses[w.Version]; !taken || !known { // one that was not tested yet before others
				uses[w.Version] = use{id, w}
			}
		}
	}
	h.tested = tested
	versions := slices.Sorted(maps.Keys(uses))
	probe := h.probe
	if len(versions) == 0 && probe != nil {
		versions = []string{probe.Version}
	}
	maps.DeleteFunc(h.opening, func(version string, _ *verdict) bool { return !slices.Contains(versions, version) })
	if len(versions) == 0 {
		return nil, nil
	}
	for _, version := range versions {
		if h.opening[version] == nil {
			h.opening[version] = &verdict{good: now, asked: before}
		}
	}
	version := h.next(versions, func(version string) bool {
		used, ok := uses[version]
		return !ok || trusted[version] || tested[testedAs(used.id, used.wrapped)]
	})
	used, ok := uses[version]
	return h.opening[version], func(ctx context.Context) (err error) {
		var dek []byte
		if ok {
			dek, err = m.wraps.unwrap(ctx, h.holder, used.id, used.wrapped)
			if err == nil || kek.ClassOf(err) == kek.Corrupt {
				m.mu.Lock()
				h.tested[testedAs(used.id, used.wrapped)] = err == nil
				if err == nil {
					m.provedLater(used.id, used.wrapped)
				}
				m.mu.Unlock()
			}
		} else {
			err = m.wraps.call(ctx, h.holder, kek.OpUnwrap, func(ctx context.Context) (err error) {
				dek, err = h.holder.kek.Unwrap(ctx, *probe)
				return err
			})
		}
		clear(dek)
		return err
	}
}

// next returns the version whose turn it is. Those that are known to give a DEK and the
// others have every second turn: so however many versions somebody makes up in records,
// the real ones are checked. The caller holds mu.
func (h *kekHealth) next(versions []string, trusted func(version string) bool) string {
	var groups [2][]string
	for _, version := range versions {
		group := 1
		if trusted(version) {
			group = 0
		}
		groups[group] = append(groups[group], version)
	}
	h.turn++
	group := h.turn % 2
	if len(groups[group]) == 0 {
		group = 1 - group
	}
	at, found := slices.BinarySearch(groups[group], h.last[group])
	if found {
		at++
	}
	h.last[group] = groups[group][at%len(groups[group])]
	return h.last[group]
}

// inMemory returns the ids of the DEKs that are opened, or seal, or were dropped by an
// outage and can be had again when it is over. The caller holds mu.
func (m *Manager) inMemory() map[envelope.ID]bool {
	ids := make(map[envelope.ID]bool)
	for id := range *m.cache.seen.Load() {
		ids[id] = true
	}
	for id := range m.dropped {
		ids[id] = true
	}
	for _, s := range m.sealers {
		for _, a := range []*active{s.current, s.candidate} {
			if a != nil {
				ids[a.entry.id] = true
			}
		}
	}
	return ids
}
