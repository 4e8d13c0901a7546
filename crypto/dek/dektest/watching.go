package dektest

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// watching is a Watch that runs.
type watching struct {
	s       *subject
	changes chan dek.Change
	resync  chan struct{}
	ended   chan error
	cancel  context.CancelFunc

	// What the changes up to now add up to.
	records    map[envelope.ID]string
	tombstones map[envelope.ID]bool
}

// watch begins to watch with a store, and waits for everything.
func (s *subject) watch(store dek.Store) (*watching, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	w := &watching{s: s, changes: make(chan dek.Change), resync: make(chan struct{}, 1), ended: make(chan error, 1), cancel: cancel}
	w.records, w.tombstones = map[envelope.ID]string{}, map[envelope.ID]bool{}
	go func() {
		w.ended <- store.Watch(ctx, w.resync, func(c dek.Change) {
			select {
			case w.changes <- c:
			case <-ctx.Done():
			}
		})
	}()
	select {
	case c := <-w.changes:
		w.add(c)
		if !c.Whole {
			return w, errors.New("Watch: the first change is not everything")
		}
		return w, nil
	case err := <-w.ended:
		return w, fmt.Errorf("Watch: %w", err)
	}
}

// end ends the watch and returns what it returned.
func (w *watching) end() error {
	w.cancel()
	return <-w.ended
}

// add takes in one change.
func (w *watching) add(c dek.Change) {
	if c.Whole {
		clear(w.records)
		clear(w.tombstones)
	}
	for _, r := range c.Records {
		w.records[r.ID] = string(r.Data)
	}
	for _, id := range c.Gone {
		delete(w.records, id)
	}
	for _, id := range c.Tombstones {
		w.tombstones[id] = true
	}
}

// until takes in changes until they add up to what is wanted, asking for everything
// first: a store that is told of changes by nobody needs it. A store that never gets
// there fails by the test's deadline.
func (w *watching) until(want func() bool) error {
	select {
	case w.resync <- struct{}{}:
	default:
	}
	for !want() {
		select {
		case c := <-w.changes:
			w.add(c)
		case err := <-w.ended:
			return fmt.Errorf("Watch: %w", err)
		}
	}
	return nil
}

func checkWatchWhole(s *subject) error {
	if _, err := s.a.Create(s.ctx, ID(1), Record(ID(1), 1)); err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	w, err := s.watch(s.b)
	defer w.cancel()
	if err != nil {
		return err
	}
	if w.records[ID(1)] != string(Record(ID(1), 1)) {
		return errors.New("Watch: everything is without a record")
	}
	return nil
}

func checkWatchChanges(s *subject) error {
	w, err := s.watch(s.b)
	defer w.cancel()
	if err != nil {
		return err
	}
	first, err := s.a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if err := w.until(func() bool { return w.records[ID(1)] == string(Record(ID(1), 1)) }); err != nil {
		return err
	}
	if _, err := s.a.Update(s.ctx, ID(1), Record(ID(1), 2), first); err != nil {
		return fmt.Errorf("Update: %w", err)
	}
	return w.until(func() bool { return w.records[ID(1)] == string(Record(ID(1), 2)) })
}

func checkWatchEnds(s *subject) error {
	w, err := s.watch(s.a)
	defer w.cancel()
	if err != nil {
		return err
	}
	if err := w.end(); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Watch: got %v, want the context's error", err)
	}
	return nil
}

func checkBury(s *subject) error {
	a, ok := s.a.(dek.Burier)
	if !ok {
		return nil
	}
	revision, err := a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if err := a.Bury(s.ctx, ID(1), []byte("{}"), revision); err != nil {
		return fmt.Errorf("Bury: %w", err)
	}
	_, errGet := s.b.Get(s.ctx, ID(1))
	_, errCreate := s.b.Create(s.ctx, ID(1), Record(ID(1), 1))
	_, errUpdate := s.b.Update(s.ctx, ID(1), Record(ID(1), 1), revision)
	for _, err := range []error{errGet, errCreate, errUpdate} {
		if !errors.Is(err, dek.ErrTombstoned) {
			return fmt.Errorf("a call for a buried record: got %v, want ErrTombstoned", err)
		}
	}
	return wantList(s, s.b, dek.Change{Whole: true, Tombstones: []envelope.ID{ID(1)}})
}

func checkBuryConflict(s *subject) error {
	a, ok := s.a.(dek.Burier)
	if !ok {
		return nil
	}
	for _, revision := range []int64{-1, 0, 1} {
		if err := a.Bury(s.ctx, ID(1), []byte("{}"), revision); !errors.Is(err, dek.ErrConflict) {
			return fmt.Errorf("Bury of a record that is not there: got %v, want ErrConflict", err)
		}
	}
	first, err := a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	second, err := s.b.Update(s.ctx, ID(1), Record(ID(1), 2), first)
	if err != nil {
		return fmt.Errorf("Update: %w", err)
	}
	if err := a.Bury(s.ctx, ID(1), []byte("{}"), first); !errors.Is(err, dek.ErrConflict) {
		return fmt.Errorf("Bury of an old revision: got %v, want ErrConflict", err)
	}
	return wantRecord(s, s.b, ID(1), Record(ID(1), 2), second)
}

func checkWatchBurial(s *subject) error {
	a, ok := s.a.(dek.Burier)
	if !ok {
		return nil
	}
	revision, err := a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	w, err := s.watch(s.b)
	defer w.cancel()
	if err != nil {
		return err
	}
	if err := a.Bury(s.ctx, ID(1), []byte("{}"), revision); err != nil {
		return fmt.Errorf("Bury: %w", err)
	}
	return w.until(func() bool { return w.tombstones[ID(1)] && w.records[ID(1)] == "" })
}

func checkExhume(s *subject) error {
	a, ok := s.a.(dek.Burier)
	if !ok {
		return nil
	}
	if _, err := a.Exhume(s.ctx, ID(1), Record(ID(1), 1)); !errors.Is(err, dek.ErrNotFound) {
		return fmt.Errorf("Exhume where there is nothing: got %v, want ErrNotFound", err)
	}
	revision, err := a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if _, err := a.Exhume(s.ctx, ID(1), Record(ID(1), 2)); !errors.Is(err, dek.ErrExists) {
		return fmt.Errorf("Exhume of a record that is there: got %v, want ErrExists", err)
	}
	if err := a.Bury(s.ctx, ID(1), []byte("{}"), revision); err != nil {
		return fmt.Errorf("Bury: %w", err)
	}
	if revision, err = a.Exhume(s.ctx, ID(1), Record(ID(1), 3)); err != nil {
		return fmt.Errorf("Exhume: %w", err)
	}
	return errors.Join(
		wantRecord(s, s.b, ID(1), Record(ID(1), 3), revision),
		wantList(s, s.b, dek.Change{Whole: true, Records: []dek.Stored{{ID: ID(1), Data: Record(ID(1), 3), Revision: revision}}}),
	)
}

func checkWatchExhumed(s *subject) error {
	a, ok := s.a.(dek.Burier)
	if !ok {
		return nil
	}
	revision, err := a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if err := a.Bury(s.ctx, ID(1), []byte("{}"), revision); err != nil {
		return fmt.Errorf("Bury: %w", err)
	}
	w, err := s.watch(s.b)
	defer w.cancel()
	if err != nil {
		return err
	}
	if _, err := a.Exhume(s.ctx, ID(1), Record(ID(1), 2)); err != nil {
		return fmt.Errorf("Exhume: %w", err)
	}
	return w.until(func() bool { return w.records[ID(1)] == string(Record(ID(1), 2)) })
}
