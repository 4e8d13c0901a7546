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
	"github.com/etcdseal/etcdseal/kek"
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
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
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
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
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
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
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

func TestTombstone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		first := w.seal(s)
		w.bury(first.ID())
		synctest.Wait()
		if _, ok := s.TryKey(); ok {
			t.Error("a buried DEK seals")
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

func TestDamagedRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
		other := w.seal(w.sealer(w.manager()))
		synctest.Wait()
		before := w.record(key.ID())
		otherData, err := w.record(other.ID()).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range [][]byte{nil, []byte("{"), []byte(`{"version":1}`), otherData} {
			release := w.held()
			w.store.Put(key.ID(), bad)
			synctest.Wait()
			if _, ok := s.TryKey(); ok {
				t.Errorf("the DEK seals while its record is %q", bad)
			}
			release()
			synctest.Wait()
			if !proofEqual(w.record(key.ID()), before) {
				t.Errorf("%q was not replaced by the record", bad)
			}
			if again, ok := s.TryKey(); !ok || again != key {
				t.Errorf("after %q was replaced: got %v, %v", bad, again, ok)
			}
		}
	})
}

func TestRecordOfNewerVersion(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		first := w.seal(s)
		newer := `{"version":2,"id":"` + first.ID().String() + `"}`
		w.store.Put(first.ID(), []byte(newer))
		synctest.Wait()
		if second := w.seal(s); second == first {
			t.Error("the DEK seals though its record is of a version that is not understood")
		}
		w.pass(2 * dek.DefaultInterval)
		stored, err := w.store.Get(t.Context(), first.ID())
		if err != nil || string(stored.Data) != newer {
			t.Errorf("the newer record: got %q, %v, want it left alone", stored.Data, err)
		}
		w.opens(m, first)
		if _, err := w.manager().OpenKey(t.Context(), first.ID()); !errors.Is(err, dek.ErrBadRecord) {
			t.Errorf("OpenKey elsewhere: got %v, want ErrBadRecord", err)
		}
	})
}

// rewrapped returns a record as another process leaves it that rewraps by the version
// that is current now.
func (w *world) rewrapped(r *dek.Record) *dek.Record {
	w.t.Helper()
	old := r.Wrappings[0]
	secret, err := w.main.Unwrap(w.t.Context(), kek.Wrapping{Version: old.Version, Algorithm: old.Algorithm, Ciphertext: old.Ciphertext})
	if err != nil {
		w.t.Fatal(err)
	}
	wrapped, err := w.main.Wrap(w.t.Context(), secret)
	if err != nil {
		w.t.Fatal(err)
	}
	again := *r
	again.Wrappings = []dek.Wrapping{{KEK: main, Version: wrapped.Version, Algorithm: wrapped.Algorithm, Ciphertext: wrapped.Ciphertext}}
	return &again
}

func TestRewrappedByAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
		w.main.Rotate("2")
		again := w.rewrapped(w.record(key.ID()))
		unwraps := w.main.Calls(kek.OpUnwrap)
		release := w.main.Block(kek.OpUnwrap)
		w.put(key.ID(), again)
		synctest.Wait()
		if _, ok := s.TryKey(); ok {
			t.Error("the DEK seals before the new wrapping was proved")
		}
		release()
		synctest.Wait()
		if got, ok := s.TryKey(); !ok || got != key {
			t.Errorf("after the proof: got %v, %v, want the same DEK", got, ok)
		}
		if n := w.main.Calls(kek.OpUnwrap) - unwraps; n != 1 {
			t.Errorf("got %d unwraps, want 1", n)
		}
		w.store.Remove(key.ID())
		synctest.Wait()
		if !proofEqual(w.record(key.ID()), again) {
			t.Error("what was put back is not what another process rewrapped")
		}
	})
}

func TestWrappingAdded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
		r := *w.record(key.ID())
		r.Wrappings = append(slices.Clone(r.Wrappings), dek.Wrapping{KEK: "elsewhere", Version: "1", Algorithm: "x", Ciphertext: []byte{1}})
		w.put(key.ID(), &r)
		synctest.Wait()
		if got, ok := s.TryKey(); !ok || got != key {
			t.Errorf("got %v, %v, want the same DEK, whose proved wrapping is still there", got, ok)
		}
		w.wantCalls(1, 1)
		w.store.Remove(key.ID())
		synctest.Wait()
		if !proofEqual(w.record(key.ID()), &r) {
			t.Error("the wrapping that another process added was not put back")
		}
	})
}

// TestWrappingsReplaced puts wrappings into the record of the DEK that seals that do not
// hold it.
func TestWrappingsReplaced(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(w *world, r *dek.Record)
		same  bool // the same DEK goes on
	}{
		{"flipped byte", func(_ *world, r *dek.Record) { r.Wrappings[0].Ciphertext[5] ^= 1 }, true},
		{"unknown KEK", func(_ *world, r *dek.Record) { r.Wrappings[0].KEK = "elsewhere" }, false},
		{"version denied", func(w *world, r *dek.Record) {
			r.Wrappings[0].Version = "2"
			w.main.FailVersion("2", kek.Disabled)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				m, _ := w.running()
				s := w.sealer(m)
				key := w.seal(s)
				proved := w.record(key.ID()).Wrappings[0]
				spoiled := w.record(key.ID())
				tt.spoil(w, spoiled)
				w.put(key.ID(), spoiled)
				synctest.Wait()
				if got := w.seal(s) == key; got != tt.same {
					t.Errorf("the same DEK goes on: got %v, want %v", got, tt.same)
				}
				stored := w.record(key.ID()).Wrappings
				kept := slices.ContainsFunc(stored, func(o dek.Wrapping) bool { return slices.Equal(o.Ciphertext, proved.Ciphertext) && o.KEK == main })
				if tt.same && (!kept || len(stored) != 2) {
					t.Errorf("got wrappings %v, want the proved one added to what was there", stored)
				}
				if !tt.same && len(stored) != 1 {
					t.Errorf("got wrappings %v, want what another process wrote", stored)
				}
				w.opens(m, key)
			})
		})
	}
}
