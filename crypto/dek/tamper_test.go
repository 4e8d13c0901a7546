package dek_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
)

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

// TestLostWhileProved removes a rewrapped record while it is being proved.
func TestLostWhileProved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
		w.main.Rotate("2")
		again := w.rewrapped(w.record(key.ID()))
		proved := w.main.Block(kek.OpUnwrap)
		w.put(key.ID(), again)
		synctest.Wait()
		release := w.held()
		w.store.Remove(key.ID())
		synctest.Wait()
		proved()
		synctest.Wait()
		if _, ok := s.TryKey(); ok {
			t.Error("the DEK seals while its record is gone")
		}
		release()
		synctest.Wait()
		w.record(key.ID())
		if got := w.seal(s); got != key {
			t.Error("another DEK seals")
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
