package dek_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// held keeps the store from creating records until release is called.
func (w *world) held() (release func()) {
	gate := make(chan struct{})
	w.store.Hook(func(ctx context.Context, op string, do func()) error {
		if op == dektest.OpCreate || op == dektest.OpUpdate {
			select {
			case <-gate:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		do()
		return nil
	})
	return func() { w.store.Hook(nil); close(gate) }
}

func TestRemovedRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, s, key := w.sealing()
		before := w.record(key.ID())
		release := w.held()
		w.store.Remove(key.ID())
		synctest.Wait()
		if _, ok := s.TryKey(); ok {
			t.Error("the DEK seals while its record is gone")
		}
		w.opens(m, key)
		release()
		synctest.Wait()
		if again, ok := s.TryKey(); !ok || again != key {
			t.Errorf("after the record was put back: got %v, %v, want the same DEK", again, ok)
		}
		if after := w.record(key.ID()); !proofEqual(before, after) {
			t.Errorf("the record put back is another: got %v, want %v", after, before)
		}
		w.wantCalls(1, 1)
		if lost, restored := w.seen.get(&w.seen.lost), w.seen.get(&w.seen.restored); lost != 1 || restored != 1 {
			t.Errorf("observed %d lost and %d restored records, want 1 and 1", lost, restored)
		}
	})
}

// proofEqual compares records by their encoding.
func proofEqual(a, b *dek.Record) bool {
	x, errX := a.Marshal()
	y, errY := b.Marshal()
	return errX == nil && errY == nil && slices.Equal(x, y)
}

func TestKeyWaitsForRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, s, key := w.sealing()
		release := w.held()
		w.store.Remove(key.ID())
		synctest.Wait()
		done := make(chan bool)
		go func() { done <- w.seal(s) == key }()
		synctest.Wait()
		select {
		case <-done:
			t.Error("Key did not wait for the record")
		default:
		}
		release()
		if !<-done {
			t.Error("Key gave another DEK than the one whose record was put back")
		}
	})
}

func TestRecordIsLostAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, s, key := w.sealing()
		creates, heard := 0, make(chan struct{})
		w.store.Hook(func(_ context.Context, op string, do func()) error {
			do()
			if op == dektest.OpCreate {
				if creates++; creates == 1 {
					w.store.Remove(key.ID()) // before the one who created it hears of it
					<-heard
				}
			}
			return nil
		})
		w.store.Remove(key.ID())
		synctest.Wait()
		close(heard) // now that the watch has heard of the second removal
		synctest.Wait()
		w.record(key.ID())
		if again, ok := s.TryKey(); !ok || again != key {
			t.Errorf("got %v, %v, want the same DEK", again, ok)
		}
		if creates != 2 {
			t.Errorf("got %d creates, want 2", creates)
		}
	})
}

// TestReadIsOutdated removes a record after somebody who puts it back read that it is
// there, and before they hear of it.
func TestReadIsOutdated(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _, key := w.sealing()
		heard := make(chan struct{})
		w.store.Hook(func(_ context.Context, op string, do func()) error {
			do()
			if op == dektest.OpGet {
				<-heard
			}
			return nil
		})
		restored := make(chan error)
		go func() { restored <- m.Restore(context.Background(), w.store.RecordKey(key.ID())) }()
		synctest.Wait()
		w.store.Remove(key.ID())
		synctest.Wait()
		close(heard)
		if err := <-restored; err != nil {
			t.Errorf("Restore: %v", err)
		}
		w.record(key.ID())
	})
}

// TestRecordIsNotYetThere has everything read while a new record is being stored.
func TestRecordIsNotYetThere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running(func(c *dek.Config) { c.StoreTimeout = time.Hour })
		release := w.held()
		key := make(chan *envelope.Key)
		go func() { key <- w.seal(w.sealer(m)) }()
		w.pass(2 * dek.DefaultInterval)
		release()
		w.opens(m, <-key)
		if n := w.seen.get(&w.seen.lost); n != 0 {
			t.Errorf("%d records were taken for lost", n)
		}
	})
}

func TestTombstone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, s, first := w.sealing()
		w.bury(first.ID())
		synctest.Wait()
		if _, ok := s.TryKey(); ok {
			t.Error("a buried DEK seals")
		}
		if n := w.seen.get(&w.seen.lost); n != 0 {
			t.Errorf("a burial was taken for the loss of %d records", n)
		}
		if second := w.seal(s); second == first {
			t.Error("Key gives a buried DEK")
		}
		if w.records()[first.ID()] != nil {
			t.Error("a buried record was put back")
		}
		other := w.manager()
		if _, err := other.OpenKey(t.Context(), first.ID()); !errors.Is(err, dek.ErrTombstoned) {
			t.Errorf("OpenKey of a buried DEK elsewhere: got %v, want ErrTombstoned", err)
		}
	})
}

func TestOlderSnapshot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		other, _ := w.running()
		before := w.seal(w.sealer(other))
		snapshot := w.store.Snapshot()
		key := w.seal(w.sealer(m))
		gone := w.seal(w.sealer(w.manager()))
		synctest.Wait()
		w.bury(gone.ID())
		synctest.Wait()
		w.store.Restore(snapshot)
		w.pass(time.Second)
		w.record(before.ID())
		w.record(key.ID())
		if w.records()[gone.ID()] != nil {
			t.Error("a record that had a tombstone was put back")
		}
		w.opens(w.manager(), key)
		w.store.Remove(key.ID()) // the watch goes on
		synctest.Wait()
		w.record(key.ID())
	})
}

// TestMissedLoss has the watch miss a removal, as that of a member which is cut off does.
func TestMissedLoss(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		deaf := &deafStore{Memory: w.store}
		m, _ := w.running(func(c *dek.Config) { c.Store = deaf })
		key := w.seal(w.sealer(m))
		w.store.Remove(key.ID())
		synctest.Wait()
		if len(w.records()) != 0 {
			t.Fatal("the watch did not miss the removal")
		}
		w.pass(dek.DefaultInterval)
		w.record(key.ID())
	})
}

// deafStore hears of changes only when it is asked for everything.
type deafStore struct{ *dektest.Memory }

func (s *deafStore) Watch(ctx context.Context, resync <-chan struct{}, f func(dek.Change)) error {
	return s.Memory.Watch(ctx, resync, func(c dek.Change) {
		if c.Whole {
			f(c)
		}
	})
}

func TestRestore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager() // without Run: nothing else puts it back
		s := w.sealer(m)
		if keys := m.ActiveRecords(); len(keys) != 0 {
			t.Errorf("ActiveRecords before the first seal: got %q", keys)
		}
		key := w.seal(s)
		keys := m.ActiveRecords()
		if len(keys) != 1 || string(keys[0]) != string(w.store.RecordKey(key.ID())) {
			t.Fatalf("ActiveRecords: got %q", keys)
		}
		if err := m.Restore(t.Context(), keys[0]); err != nil {
			t.Errorf("Restore of a record that is there: %v", err)
		}
		w.store.Remove(key.ID())
		if err := m.Restore(t.Context(), keys[0]); err != nil {
			t.Errorf("Restore: %v", err)
		}
		w.record(key.ID())
		if again, ok := s.TryKey(); !ok || again != key {
			t.Errorf("after Restore: got %v, %v, want the same DEK", again, ok)
		}
		w.bury(key.ID())
		if err := m.Restore(t.Context(), keys[0]); !errors.Is(err, dek.ErrTombstoned) {
			t.Errorf("Restore of a buried record: got %v, want ErrTombstoned", err)
		}
		if _, ok := s.TryKey(); ok {
			t.Error("the DEK of a buried record seals")
		}
		if err := m.Restore(t.Context(), []byte("/elsewhere")); !errors.Is(err, dek.ErrUnknownDEK) {
			t.Errorf("Restore of an unknown record: got %v, want ErrUnknownDEK", err)
		}
	})
}
