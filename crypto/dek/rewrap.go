package dek

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// rewrapped is a record with its wrappings changed by a plan, as far as the KEKs did
// their part.
type rewrapped struct {
	record  *Record
	proved  []Wrapping // wrappings in record that were unwrapped and gave the DEK
	added   []Wrapping
	dropped []Wrapping
	kept    []Wrapping // those that do not give the DEK here, so that they are not this process's to drop, and say nothing of the DEK's rules
	errs    []error    // what could not be done and is worth another try
}

// rewrapping is the work of rewrapping one record.
type rewrapping struct {
	*wrapper
	dek []byte
	now time.Time
	out rewrapped
}

// rewrap carries out a plan. A wrapping is added after it was unwrapped again, and one is
// removed only if it gave the DEK here, so that it is by a KEK and version that this
// process knows, and if another one that stays did so just now. The error says that the
// DEK could not be had at all.
func (w *wrapper) rewrap(ctx context.Context, r *Record, p plan, views map[string]view, drop string, now time.Time) (*rewrapped, error) {
	next := *r
	next.Claim = nil
	next.Wrappings, next.Dropped = slices.Clone(r.Wrappings), slices.Clone(r.Dropped)
	work := rewrapping{wrapper: w, now: now.UTC().Truncate(time.Second), out: rewrapped{record: &next}}
	if err := work.open(ctx, p); err != nil {
		return nil, err
	}
	defer clear(work.dek)
	for i := len(p.add) - 1; i >= 0; i-- { // the first of them is to stand first
		its, err := work.belongs(ctx, p.evidence[p.add[i]])
		if err == nil && its {
			err = work.add(ctx, p.add[i], views[p.add[i]].version)
		}
		if err != nil {
			work.out.errs = append(work.out.errs, err)
		}
	}
	for _, old := range p.drop {
		err := work.drop(ctx, old, views[old.KEK].version, old.KEK == drop)
		if err != nil {
			work.out.errs = append(work.out.errs, err)
		}
	}
	return &work.out, nil
}

// open has the DEK, by a wrapping that is to be dropped if one will do: it has to be
// unwrapped anyway.
func (w *rewrapping) open(ctx context.Context, p plan) error {
	order := w.likely(w.out.record)
	doomed := func(one *Wrapping) int {
		if proves([]Wrapping{*one}, &Record{Wrappings: p.drop}) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(order, func(a, b *Wrapping) int { return doomed(a) - doomed(b) })
	var errs []error
	for _, one := range order {
		dek, err := w.unwrap(ctx, w.keks[one.KEK], w.out.record.ID, one)
		if err == nil {
			w.dek = dek
			w.out.proved = append(w.out.proved, *one)
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return fmt.Errorf("%w: %s", ErrNoKEK, names(w.out.record))
	}
	return joinKEKErrors(errs)
}

// belongs reports whether one of the KEKs that are evidence of the DEK's rules gives it.
func (w *rewrapping) belongs(ctx context.Context, evidence []string) (bool, error) {
	if len(evidence) == 0 {
		return true, nil
	}
	var errs []error
	for i := range w.out.record.Wrappings {
		one := &w.out.record.Wrappings[i]
		if !slices.Contains(evidence, one.KEK) || proves(w.out.kept, &Record{Wrappings: []Wrapping{*one}}) {
			continue
		}
		switch err := w.prove(ctx, one); {
		case err == nil:
			return true, nil
		case passing(err):
			errs = append(errs, err)
		default:
			w.out.kept = append(w.out.kept, *one)
		}
	}
	if len(errs) == 0 {
		return false, nil
	}
	return false, joinKEKErrors(errs)
}

// add wraps the DEK by a KEK and puts the wrapping first.
func (w *rewrapping) add(ctx context.Context, name, version string) error {
	made, err := w.wrap(ctx, w.keks[name], w.out.record, w.dek)
	if err != nil {
		return err
	}
	if made.Version != version {
		return &kek.Error{Class: kek.Unavailable, Op: kek.OpWrap, KEK: name, Version: made.Version, Err: errAnotherVersion}
	}
	made.Wrapped = w.now
	next := *w.out.record
	next.Wrappings = append([]Wrapping{*made}, next.Wrappings...)
	next.Dropped = slices.DeleteFunc(slices.Clone(next.Dropped), func(d Dropped) bool { return d.KEK == name && d.Version == made.Version })
	if _, err := next.Marshal(); err != nil {
		return fmt.Errorf("adding a wrapping by KEK %q: %w", name, err)
	}
	*w.out.record = next
	w.out.added = append(w.out.added, *made)
	w.out.proved = append(w.out.proved, *made)
	return nil
}

// errAnotherVersion says that a KEK was rotated in between, or does not wrap by the
// version that it says.
var errAnotherVersion = errors.New("it has another version by now than it said")

// drop removes a wrapping. If a person asked for its KEK to be given up, it need not
// give the DEK; else it has to, and the KEK's version has to be there.
func (w *rewrapping) drop(ctx context.Context, old Wrapping, version string, ordered bool) error {
	stays := func(one *Wrapping) bool {
		if ordered {
			return one.KEK != old.KEK && w.keks[one.KEK] != nil
		}
		return one.KEK == old.KEK && one.Version == version
	}
	if err := w.proveOne(ctx, stays); err != nil {
		return fmt.Errorf("keeping the %s: %w", old, err)
	}
	if !ordered {
		if err := w.prove(ctx, &old); err != nil && passing(err) {
			return err
		} else if err != nil {
			w.out.kept = append(w.out.kept, old)
			return nil
		}
	}
	next := w.out.record
	next.Wrappings = slices.DeleteFunc(next.Wrappings, func(one Wrapping) bool { return one.same(&old) })
	next.remember(Dropped{KEK: old.KEK, Version: old.Version, At: w.now})
	w.out.dropped = append(w.out.dropped, old)
	return nil
}

// errNothingStays says that a record would have no wrapping that is known to be good.
var errNothingStays = errors.New("no other wrapping is there that gives the DEK")

// proveOne sees to it that one of the wrappings that stay gave the DEK.
func (w *rewrapping) proveOne(ctx context.Context, stays func(*Wrapping) bool) error {
	var candidates []*Wrapping
	for i := range w.out.record.Wrappings {
		if one := &w.out.record.Wrappings[i]; stays(one) {
			if proves([]Wrapping{*one}, &Record{Wrappings: w.out.proved}) {
				return nil
			}
			candidates = append(candidates, one)
		}
	}
	err := errNothingStays
	for _, one := range candidates {
		if err = w.prove(ctx, one); err == nil {
			return nil
		}
	}
	return err
}

// prove unwraps a wrapping, unless that was done, and compares.
func (w *rewrapping) prove(ctx context.Context, one *Wrapping) error {
	if proves([]Wrapping{*one}, &Record{Wrappings: w.out.proved}) {
		return nil
	}
	again, err := w.unwrap(ctx, w.keks[one.KEK], w.out.record.ID, one)
	if err != nil {
		return err
	}
	defer clear(again)
	if subtle.ConstantTimeCompare(again, w.dek) != 1 {
		return ErrMismatch
	}
	w.out.proved = append(w.out.proved, *one)
	return nil
}

// remember notes that a wrapping was dropped. The oldest notes go when there are too
// many.
func (r *Record) remember(d Dropped) {
	r.Dropped = slices.DeleteFunc(r.Dropped, func(o Dropped) bool { return o.KEK == d.KEK && o.Version == d.Version })
	r.Dropped = append(r.Dropped, d)
	for len(r.Dropped) > 1 {
		if _, err := r.Marshal(); err == nil && len(r.Dropped) <= MaxDropped {
			return
		}
		r.Dropped = r.Dropped[1:]
	}
}

// outcome is how a try to rewrap a record ended.
type outcome int

const (
	unchanged outcome = iota // there was nothing to do
	changed
	busy   // somebody else is at it
	failed // nothing was done, or not all
)

// rewrapRecord does what a policy says of one record, in four steps that may be cut off
// anywhere: read it, claim it, ask the KEKs, write it. After the first two nothing has
// changed but for the claim, which ends by itself.
//
// It waits for its turn in a pass, and does not ask KEKs that failed in it.
func (m *Manager) rewrapRecord(ctx context.Context, id envelope.ID, run *pass) (outcome, *rewrapped, error) {
	stored, record, err := m.readRecord(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrTombstoned), errors.Is(err, ErrBadRecord):
		return unchanged, nil, nil // it is gone, or others' to mend
	case err != nil:
		return failed, nil, err
	}
	todo := run.p.plan(record)
	now := m.config.Now()
	switch {
	case todo.empty():
		return unchanged, nil, nil
	case record.Claim.holds(m.self, now):
		return busy, nil, nil
	}
	if todo = todo.without(run.isDown); todo.empty() || !m.wraps.canOpen(record, run.isDown) {
		return failed, nil, errStopped
	}
	if err := run.turn(ctx); err != nil {
		return failed, nil, err
	}
	now = m.config.Now()
	if err := m.openedBefore(ctx, record); err != nil {
		return failed, nil, err
	}
	patience := time.Duration(2*len(todo.add)+len(todo.drop)+2) * m.config.KEKTimeout
	claimed := *record
	claimed.Claim = &Claim{By: m.self, Until: now.Add(min(patience+3*m.config.StoreTimeout, maxClaim)).UTC().Truncate(time.Second)}
	revision, err := m.writeRecord(ctx, &claimed, stored.Revision)
	if err != nil {
		return conflictOr(failed, err), nil, notConflict(err)
	}
	asking, cancel := context.WithTimeout(kek.WithWhy(ctx, kek.WhyRotation), patience)
	next, err := m.wraps.rewrap(asking, record, todo, run.p.views, run.p.drop, now)
	cancel()
	if err != nil {
		m.release(ctx, record, revision)
		m.noteUnopened(id, err)
		return failed, nil, err
	}
	m.keep(record, next.kept)
	if len(next.added) == 0 && len(next.dropped) == 0 {
		m.release(ctx, record, revision)
		if len(next.errs) == 0 {
			return unchanged, nil, nil
		}
		return failed, next, joinKEKErrors(next.errs)
	}
	if err := m.auditRewrap(next); err != nil {
		m.release(ctx, record, revision)
		return failed, nil, err
	}
	m.vouch(id, next.proved)
	if _, err := m.writeRecord(ctx, next.record, revision); err != nil {
		return conflictOr(failed, err), nil, notConflict(err)
	}
	m.noteRewrapped(next)
	if len(next.errs) > 0 {
		return failed, next, joinKEKErrors(next.errs)
	}
	return changed, next, nil
}

// maxClaim is how long a claim can last. One that says more was made by a clock that is
// wrong, or by somebody who wants to keep a record from being rewrapped.
const maxClaim = time.Hour

// holds reports whether a claim keeps a process from rewrapping. It may be nil.
func (c *Claim) holds(self string, now time.Time) bool {
	return c != nil && c.By != self && now.Before(c.Until) && c.Until.Sub(now) <= maxClaim
}

func conflictOr(other outcome, err error) outcome {
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrTombstoned) {
		return busy
	}
	return other
}

func notConflict(err error) error {
	if conflictOr(failed, err) == busy {
		return nil
	}
	return err
}

// readRecord reads a record and checks it.
func (m *Manager) readRecord(ctx context.Context, id envelope.ID) (Stored, *Record, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	stored, err := m.store.Get(ctx, id)
	if err != nil {
		return Stored{}, nil, timedOut(err)
	}
	record, err := m.check(stored)
	return stored, record, err
}

// writeRecord writes a record in the place of the one that has a revision.
func (m *Manager) writeRecord(ctx context.Context, r *Record, revision int64) (int64, error) {
	data, err := r.Marshal()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	revision, err = m.store.Update(ctx, r.ID, data, revision)
	return revision, timedOut(err)
}

// release gives a claim back, for others to try. If that fails it ends by itself.
func (m *Manager) release(ctx context.Context, record *Record, revision int64) {
	free := *record
	free.Claim = nil
	if _, err := m.writeRecord(context.WithoutCancel(ctx), &free, revision); err != nil {
		m.log.Debug("giving back the claim on a record failed", "dek", record.ID.String(), "error", err)
	}
}

// vouch notes which wrappings this process proved before it writes them, so that it need
// not prove them again when it hears of them from the store.
func (m *Manager) vouch(id envelope.ID, proved []Wrapping) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[id]; e != nil {
		e.vouched = proved
	}
}

// keep notes wrappings that are not this process's to drop.
func (m *Manager) keep(r *Record, kept []Wrapping) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range kept {
		m.kept[keptKey(r, &kept[i])] = m.config.Now().Add(keepTime)
		m.log.Warn("a wrapping of a DEK does not give it here and stays in its record", "dek", r.ID.String(),
			"kek", kept[i].KEK, "keyVersion", kept[i].Version)
	}
}

// keepTime is how long a wrapping is left alone that does not give the DEK.
const keepTime = 24 * time.Hour

// unopenedTime is how long a record is left alone that does not give the DEK.
const unopenedTime = time.Hour

// noteUnopened notes that a record does not give its DEK here.
func (m *Manager) noteUnopened(id envelope.ID, err error) {
	if passing(err) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unopened[id] = m.config.Now().Add(unopenedTime)
}

// openedBefore opens a record that did not give its DEK the last time, so that one which
// never does is not claimed again and again.
func (m *Manager) openedBefore(ctx context.Context, r *Record) error {
	m.mu.Lock()
	_, doubtful := m.unopened[r.ID]
	m.mu.Unlock()
	if !doubtful {
		return nil
	}
	if _, _, err := m.wraps.open(ctx, r); err != nil {
		m.noteUnopened(r.ID, err)
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unopened, r.ID)
	return nil
}

func (m *Manager) noteRewrapped(next *rewrapped) {
	m.obs.RecordRewrapped()
	var added, dropped []string
	for _, w := range next.added {
		added = append(added, w.String())
	}
	for _, w := range next.dropped {
		dropped = append(dropped, w.String())
	}
	m.log.Info("a DEK was rewrapped", "dek", next.record.ID.String(), "added", added, "dropped", dropped)
}

// newSelf returns a name for a process's claims.
func newSelf() string { return rand.Text() }
