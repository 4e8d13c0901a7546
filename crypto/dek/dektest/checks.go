package dektest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// writers is how many goroutines write at once where one is to win.
const writers = 8

func checkNothing(s *subject) error {
	if _, err := s.a.Get(s.ctx, ID(1)); !errors.Is(err, dek.ErrNotFound) {
		return fmt.Errorf("Get of a record that is not there: got %v, want ErrNotFound", err)
	}
	if err := s.a.Ping(s.ctx); err != nil {
		return fmt.Errorf("Ping: %w", err)
	}
	return wantList(s, s.a, dek.Change{Whole: true})
}

func checkCreate(s *subject) error {
	revision, err := s.a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if revision < 1 {
		return fmt.Errorf("Create: got revision %d, want a positive one", revision)
	}
	return errors.Join(wantRecord(s, s.a, ID(1), Record(ID(1), 1), revision), wantRecord(s, s.b, ID(1), Record(ID(1), 1), revision))
}

func checkCreateOnly(s *subject) error {
	revision, err := s.a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if _, err := s.b.Create(s.ctx, ID(1), Record(ID(1), 2)); !errors.Is(err, dek.ErrExists) {
		return fmt.Errorf("Create of a record that is there: got %v, want ErrExists", err)
	}
	if _, err := s.b.Create(s.ctx, ID(1), Record(ID(1), 1)); !errors.Is(err, dek.ErrExists) {
		return fmt.Errorf("Create of the very record that is there: got %v, want ErrExists", err)
	}
	return wantRecord(s, s.a, ID(1), Record(ID(1), 1), revision)
}

func checkCreateRace(s *subject) error {
	return race(s, dek.ErrExists, func(store dek.Store, n byte) (int64, error) {
		return store.Create(s.ctx, ID(1), Record(ID(1), n))
	})
}

func checkUpdate(s *subject) error {
	first, err := s.a.Create(s.ctx, ID(1), Record(ID(1), 1))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if _, err := s.a.Create(s.ctx, ID(2), Record(ID(2), 1)); err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	second, err := s.b.Update(s.ctx, ID(1), Record(ID(1), 2), first)
	if err != nil {
		return fmt.Errorf("Update: %w", err)
	}
	if second == first {
		return errors.New("Update: the revision is the same as before")
	}
	if _, err := s.a.Update(s.ctx, ID(1), Record(ID(1), 3), first); !errors.Is(err, dek.ErrConflict) {
		return fmt.Errorf("Update of an old revision: got %v, want ErrConflict", err)
	}
	return wantRecord(s, s.a, ID(1), Record(ID(1), 2), second)
}

func checkUpdateAbsent(s *subject) error {
	for _, revision := range []int64{-1, 0, 1} {
		if _, err := s.a.Update(s.ctx, ID(1), Record(ID(1), 1), revision); !errors.Is(err, dek.ErrConflict) {
			return fmt.Errorf("Update of revision %d of a record that is not there: got %v, want ErrConflict", revision, err)
		}
	}
	return wantList(s, s.a, dek.Change{Whole: true})
}

func checkUpdateRace(s *subject) error {
	first, err := s.a.Create(s.ctx, ID(1), Record(ID(1), 100))
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	return race(s, dek.ErrConflict, func(store dek.Store, n byte) (int64, error) {
		return store.Update(s.ctx, ID(1), Record(ID(1), n), first)
	})
}

// race has both stores write at once. One write has to win, the others fail with lose.
func race(s *subject, lose error, write func(store dek.Store, n byte) (int64, error)) error {
	var revisions [writers]int64
	var errs [writers]error
	var wg sync.WaitGroup
	for i := range writers {
		store := s.a
		if i%2 == 1 {
			store = s.b
		}
		wg.Go(func() { revisions[i], errs[i] = write(store, byte(i)) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			return fmt.Errorf("writers %d and %d both won", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, lose):
			return fmt.Errorf("writer %d: got %w, want %w", i, err, lose)
		}
	}
	if winner < 0 {
		return errors.New("no writer won")
	}
	return wantRecord(s, s.a, ID(1), Record(ID(1), byte(winner)), revisions[winner])
}

func checkArguments(s *subject) error {
	data := Record(ID(1), 1)
	revision, err := s.a.Create(s.ctx, ID(1), data)
	if err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if !bytes.Equal(data, Record(ID(1), 1)) {
		return errors.New("Create changed the data that it was given")
	}
	clear(data)
	return wantRecord(s, s.a, ID(1), Record(ID(1), 1), revision)
}

func checkList(s *subject) error {
	want := dek.Change{Whole: true}
	for n := range byte(5) {
		revision, err := s.a.Create(s.ctx, ID(n), Record(ID(n), n))
		if err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		want.Records = append(want.Records, dek.Stored{ID: ID(n), Data: Record(ID(n), n), Revision: revision})
	}
	return errors.Join(wantList(s, s.a, want), wantList(s, s.b, want))
}

func checkRecordKeys(s *subject) error {
	one, two := s.a.RecordKey(ID(1)), s.a.RecordKey(ID(2))
	if one != nil && bytes.Equal(one, two) {
		return fmt.Errorf("two records have the key %q", one)
	}
	if !bytes.Equal(one, s.b.RecordKey(ID(1))) {
		return fmt.Errorf("one record has the keys %q and %q", one, s.b.RecordKey(ID(1)))
	}
	return nil
}

func checkEndedContext(s *subject) error {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, errGet := s.a.Get(ctx, ID(1))
	_, errList := s.a.List(ctx)
	_, errCreate := s.a.Create(ctx, ID(1), Record(ID(1), 1))
	_, errUpdate := s.a.Update(ctx, ID(1), Record(ID(1), 1), 1)
	errPing := s.a.Ping(ctx)
	errWatch := s.a.Watch(ctx, nil, func(dek.Change) {})
	for _, err := range []error{errGet, errList, errCreate, errUpdate, errPing, errWatch} {
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a call with an ended context: got %v, want the context's error", err)
		}
	}
	return wantList(s, s.a, dek.Change{Whole: true})
}

// wantRecord compares what a store has with what it should have.
func wantRecord(s *subject, store dek.Store, id envelope.ID, data []byte, revision int64) error {
	got, err := store.Get(s.ctx, id)
	if err != nil {
		return fmt.Errorf("Get: %w", err)
	}
	if diff := cmp.Diff(dek.Stored{ID: id, Data: data, Revision: revision}, got); diff != "" {
		return fmt.Errorf("Get (-want +got):\n%s", diff)
	}
	return nil
}

func wantList(s *subject, store dek.Store, want dek.Change) error {
	got, err := store.List(s.ctx)
	if err != nil {
		return fmt.Errorf("List: %w", err)
	}
	if diff := cmp.Diff(want, got, anyOrder, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(dek.Change{}, "Revision")); diff != "" {
		return fmt.Errorf("List (-want +got):\n%s", diff)
	}
	return nil
}

// anyOrder compares the parts of a Change as sets.
var anyOrder = cmp.Options{
	cmpopts.SortSlices(func(a, b dek.Stored) bool { return a.ID.String() < b.ID.String() }),
	cmpopts.SortSlices(func(a, b envelope.ID) bool { return a.String() < b.String() }),
}
