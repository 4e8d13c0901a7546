package dek

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// RotateOptions say what Rotate does beside rewrapping.
type RotateOptions struct {
	// DropKEK is a KEK all of whose wrappings are removed; "" is none. It must not be
	// in a Set. It need not be configured.
	DropKEK string
	// DryRun changes nothing: what would be done is reported as if it were.
	DryRun bool
}

// Rotation is what Rotate did, or would do.
type Rotation struct {
	Records int          // in the keyring
	Changed []Rewrapping // ordered by id
	Failed  []Rewrapping // those that need something that could not be done, or not all
	// Homeless are DEKs that no rule's KEKs wrap, and that could belong to several rules.
	Homeless []envelope.ID
	// KEKs are those that did not say which version they have.
	KEKs []KEKError
}

// Rewrapping is what was done to one record.
type Rewrapping struct {
	ID      envelope.ID
	Added   []string // KEKs that wrap it now by their current version
	Dropped []KEKVersion
	Err     error // why not all was done; nil if it was
}

// KEKVersion is one version of a KEK.
type KEKVersion struct{ KEK, Version string }

// KEKError is what a KEK failed with.
type KEKError struct {
	KEK string
	Err error
}

// Rotate has every record wrapped as WrapBy says, at once, as a person orders it: the
// versions that the KEKs name now are the ones that count, and what was dropped before is
// wrapped anew if need be. It waits for other processes that are at a record. The error
// says that nothing could be begun.
//
// Wrappings by older versions of the Sets' KEKs are removed where they give the DEK here;
// those made after Rotate asked the KEKs are left alone. Wrappings by other KEKs are
// removed only if DropKEK names theirs, and only if another one of a configured KEK gave
// the DEK just now.
func (m *Manager) Rotate(ctx context.Context, o RotateOptions) (*Rotation, error) {
	p, out, err := m.order(ctx, o)
	if err != nil {
		return nil, err
	}
	records, err := m.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("rotating: %w", err)
	}
	out.Records = len(records.usable) + len(records.strange)
	var todo []envelope.ID
	for _, r := range records.usable {
		switch does := p.plan(r); {
		case !does.empty() && !m.wraps.canOpen(r, nobody):
			out.Failed = append(out.Failed, Rewrapping{ID: r.ID, Err: fmt.Errorf("%w: %s", ErrNoKEK, names(r))})
		case does.empty() && does.homeless:
			out.Homeless = append(out.Homeless, r.ID)
		case does.empty():
		case o.DryRun:
			out.Changed = append(out.Changed, does.rewrapping(r))
		default:
			todo = append(todo, r.ID)
		}
	}
	rand.Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	m.carryOut(ctx, p, todo, out)
	for id, err := range records.strange {
		out.Failed = append(out.Failed, Rewrapping{ID: id, Err: err})
	}
	byID := func(a, b Rewrapping) int { return cmp.Compare(a.ID.String(), b.ID.String()) }
	slices.SortFunc(out.Changed, byID)
	slices.SortFunc(out.Failed, byID)
	return out, ctx.Err()
}

// order asks the KEKs for their versions and returns what a person's order means.
func (m *Manager) order(ctx context.Context, o RotateOptions) (*policy, *Rotation, error) {
	m.mu.Lock()
	sets := m.sets
	m.mu.Unlock()
	out := &Rotation{}
	var all []string
	for _, s := range sets {
		all = append(all, s.names()...)
	}
	switch {
	case len(all) == 0:
		return nil, nil, errors.New("rotating: no rule names a KEK")
	case slices.Contains(all, o.DropKEK):
		return nil, nil, fmt.Errorf("dropping KEK %q: a rule still names it: take it out of the rules of every process first", o.DropKEK)
	}
	for _, name := range unique(all) {
		version, err := m.wraps.version(ctx, m.wraps.keks[name])
		m.mu.Lock()
		if err == nil {
			m.see(name, version)
		} else {
			delete(m.views, name)
			out.KEKs = append(out.KEKs, KEKError{KEK: name, Err: err})
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.kept)
	clear(m.unopened)
	p := m.policy()
	p.asked, p.drop = true, o.DropKEK
	return p, out, nil
}

// carryOut rewraps records and waits for other processes that are at one.
func (m *Manager) carryOut(ctx context.Context, p *policy, todo []envelope.ID, out *Rotation) {
	for try := 0; len(todo) > 0; try++ {
		run := &pass{m: m, p: p, next: time.Now(), down: map[string]bool{}}
		run.report = func(id envelope.ID, end outcome, done *rewrapped, err error) {
			r := Rewrapping{ID: id, Err: err}
			if done != nil {
				r.take(done)
			}
			switch {
			case end == failed, end == busy && try == maxBusyRetries:
				r.Err = cmp.Or(r.Err, errBusy)
				out.Failed = append(out.Failed, r)
			case end == changed:
				out.Changed = append(out.Changed, r)
			}
		}
		run.all(ctx, todo)
		todo = run.busyIDs
		if len(todo) == 0 || try == maxBusyRetries || !sleep(ctx, busyRetry) {
			return
		}
	}
}

var errBusy = errors.New("other processes rewrap it all the time")

func (r *Rewrapping) take(done *rewrapped) {
	for _, w := range done.added {
		r.Added = append(r.Added, w.KEK)
	}
	for _, w := range done.dropped {
		r.Dropped = append(r.Dropped, KEKVersion{w.KEK, w.Version})
	}
	slices.Sort(r.Added)
}

func (p *plan) rewrapping(r *Record) Rewrapping {
	out := Rewrapping{ID: r.ID}
	out.take(&rewrapped{dropped: p.drop})
	out.Added = slices.Sorted(slices.Values(p.add))
	return out
}

// listed is what the store has.
type listed struct {
	usable     []*Record // ordered by id
	strange    map[envelope.ID]error
	tombstones int
}

// list reads everything.
func (m *Manager) list(ctx context.Context) (*listed, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	all, err := m.store.List(ctx)
	if err != nil {
		return nil, timedOut(err)
	}
	out := &listed{strange: map[envelope.ID]error{}, tombstones: len(all.Tombstones)}
	for _, stored := range all.Records {
		r, err := m.check(stored)
		if err != nil {
			out.strange[stored.ID] = err
			continue
		}
		out.usable = append(out.usable, r)
	}
	slices.SortFunc(out.usable, func(a, b *Record) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	return out, nil
}
