package dek_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

func TestDamagedRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, s, key := w.sealing()
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
		m, s, first := w.sealing()
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
	again := *r
	again.Wrappings = []dek.Wrapping{w.wrappedBy(main, w.main, w.unwrapped(r.Wrappings[0]))}
	return &again
}

func TestRewrappedByAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, s, key := w.sealing()
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
		_, s, key := w.sealing()
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
		_, s, key := w.sealing()
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

// TestWrappingsReplaced puts wrappings into a record that do not give its DEK here, in
// place of those that do.
func TestWrappingsReplaced(t *testing.T) {
	spoils := map[string]func(w *world, r *dek.Record){
		"flipped byte": func(_ *world, r *dek.Record) { r.Wrappings[0].Ciphertext[5] ^= 1 },
		"unknown KEK":  func(_ *world, r *dek.Record) { r.Wrappings[0].KEK = "elsewhere" },
		"version denied": func(w *world, r *dek.Record) {
			r.Wrappings[0].Version = "2"
			w.main.FailVersion("2", kek.Disabled)
		},
	}
	// What the process did with the DEK before.
	uses := map[string]func(w *world, m *dek.Manager) (key *envelope.Key, seals *dek.Sealer){
		"sealed": func(w *world, m *dek.Manager) (*envelope.Key, *dek.Sealer) {
			s := w.sealer(m)
			return w.seal(s), s
		},
		"opened": func(w *world, m *dek.Manager) (*envelope.Key, *dek.Sealer) {
			key := w.seal(w.sealer(w.manager()))
			w.opens(m, key)
			return key, nil
		},
		"listed": func(w *world, _ *dek.Manager) (*envelope.Key, *dek.Sealer) {
			return w.seal(w.sealer(w.manager())), nil
		},
	}
	for use, first := range uses {
		for spoil, replace := range spoils {
			t.Run(use+", "+spoil, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					m, stop := w.running()
					key, s := first(w, m)
					synctest.Wait()
					good, spoiled := w.record(key.ID()).Wrappings[0], w.record(key.ID())
					replace(w, spoiled)
					w.put(key.ID(), spoiled)
					synctest.Wait()
					if s != nil && w.seal(s) != key {
						t.Error("another DEK seals")
					}
					if got := w.record(key.ID()).Wrappings; len(got) != 2 || !same(got[0], good) || !same(got[1], spoiled.Wrappings[0]) {
						t.Errorf("got wrappings %v, want the good one beside what was there", got)
					}
					w.opens(m, key)
					stop()
					w.opens(w.manager(), key) // after a restart
				})
			})
		}
	}
}

func same(a, b dek.Wrapping) bool {
	return a.KEK == b.KEK && a.Version == b.Version && slices.Equal(a.Ciphertext, b.Ciphertext)
}

// TestRewrappedOfAnother has a process adopt what another made of a DEK that it only
// opens: after one unwrap, without writing.
func TestRewrappedOfAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.running()
		key := w.seal(w.sealer(w.manager()))
		synctest.Wait()
		w.main.Rotate("2")
		again := w.rewrapped(w.record(key.ID()))
		unwraps := w.main.Calls(kek.OpUnwrap)
		w.put(key.ID(), again)
		w.pass(5 * dek.DefaultInterval)
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

// TestWrappingsReplacedWhileUnreachable has the KEK not answer when it is needed to tell
// which wrappings are good.
func TestWrappingsReplacedWhileUnreachable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		mine, others := w.seal(s), w.seal(w.sealer(w.manager()))
		w.opens(m, others)
		release := w.main.Block(kek.OpUnwrap)
		for _, key := range []*envelope.Key{mine, others} {
			spoiled := w.record(key.ID())
			spoiled.Wrappings[0].Ciphertext[5] ^= 1
			w.put(key.ID(), spoiled)
		}
		lost := w.seal(w.sealer(w.manager(func(c *dek.Config) { // of a KEK that answers
			c.KEKs = map[string]kek.KEK{main: w.recovery}
		})))
		synctest.Wait()
		w.store.Remove(lost.ID())
		synctest.Wait()
		w.record(lost.ID()) // nothing is put back behind the KEK
		w.opens(m, others)
		w.pass(2 * dek.DefaultKEKTimeout)
		if key, ok := s.TryKey(); !ok || key != mine {
			t.Errorf("got %v, %v, want the DEK that sealed before, whose wrapping was proved", key, ok)
		}
		if n := len(w.record(others.ID()).Wrappings); n != 1 {
			t.Errorf("got %d wrappings while nobody knows which are good, want what was there", n)
		}
		release()
		w.pass(dek.DefaultInterval)
		for _, key := range []*envelope.Key{mine, others} {
			if n := len(w.record(key.ID()).Wrappings); n != 2 {
				t.Errorf("got %d wrappings when the KEK answers again, want 2", n)
			}
			w.opens(w.manager(), key)
		}
	})
}

// TestProcessesDoNotFight has two processes each know wrappings that the other cannot
// open, and then two that mend the same record.
func TestProcessesDoNotFight(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		updates := 0
		w.store.Hook(func(_ context.Context, op string, do func()) error {
			if op == dektest.OpUpdate {
				updates++
			}
			do()
			return nil
		})
		m, _ := w.running(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: w.main} })
		key := w.seal(w.sealer(m))
		w.opens(m, key)
		r := w.record(key.ID())
		r.Wrappings = []dek.Wrapping{w.wrappedBy(recovery, w.recovery, w.unwrapped(r.Wrappings[0]))}
		w.put(key.ID(), r)
		other, _ := w.running(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{recovery: w.recovery} })
		w.pass(10 * dek.DefaultInterval)
		if n := len(w.record(key.ID()).Wrappings); n != 2 || updates != 1 {
			t.Errorf("got %d wrappings after %d updates, want 2 after 1", n, updates)
		}
		w.opens(other, key)

		w.running()
		updates = 0
		r.Wrappings[0].Ciphertext[5] ^= 1
		w.put(key.ID(), r)
		w.pass(10 * dek.DefaultInterval)
		if n := len(w.record(key.ID()).Wrappings); n != 3 || updates > 3 {
			t.Errorf("got %d wrappings after %d updates, want 3 after one of each process at most", n, updates)
		}
	})
}

// TestNothingGivesTheDEK has a process know no wrapping that is any better than what is
// in the store: it writes nothing, and looks again in case that changes.
func TestNothingGivesTheDEK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, s, key := w.sealing()
		spoiled := w.record(key.ID())
		spoiled.Wrappings[0].Ciphertext[5] ^= 1
		w.main.FailVersion("1", kek.Disabled)
		w.put(key.ID(), spoiled)
		w.pass(2 * dek.DefaultInterval)
		if !proofEqual(w.record(key.ID()), spoiled) {
			t.Error("a wrapping that opens nothing was put beside what is there")
		}
		if _, ok := s.TryKey(); ok {
			t.Error("a DEK seals that cannot be had from its record")
		}
		w.main.FailVersion("1", 0)
		w.pass(dek.DefaultInterval)
		if n := len(w.record(key.ID()).Wrappings); n != 2 {
			t.Errorf("got %d wrappings when the KEK gives the DEK again, want 2", n)
		}
	})
}
