package dek_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/kek"
)

func TestRotation(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		first := w.seal(s)
		w.main.Rotate("2")
		if key, ok := s.TryKey(); !ok || key != first {
			t.Errorf("before the KEK was asked: got %v, %v, want the first DEK", key, ok)
		}
		w.pass(dek.DefaultInterval)
		second, ok := s.TryKey()
		if !ok || second == first {
			t.Fatalf("after the KEK was asked: got %v, %v, want another DEK", second, ok)
		}
		if got := w.record(second.ID()).Wrappings[0].Version; got != "2" {
			t.Errorf("the new DEK is wrapped by version %q, want 2", got)
		}
		w.pass(10 * dek.DefaultInterval)
		if n := len(w.records()); n != 2 {
			t.Errorf("got %d records, want 2", n)
		}
		w.opens(m, first)
	})
}

func TestRotationWhileKEKFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		first := w.seal(s)
		w.main.Rotate("2")
		w.main.Fail(kek.Unavailable, kek.OpWrap)
		w.pass(3 * dek.DefaultInterval)
		if key, ok := s.TryKey(); !ok || key != first {
			t.Errorf("while no DEK can be made: got %v, %v, want the first DEK", key, ok)
		}
		w.main.Fail(0)
		w.pass(dek.DefaultInterval)
		if key, ok := s.TryKey(); !ok || key == first {
			t.Errorf("after the KEK is back: got %v, %v, want another DEK", key, ok)
		}
	})
}

// TestInconsistentKEK has a KEK that wraps by another version than it says: that must
// not make a DEK every minute.
func TestInconsistentKEK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		liar := &lyingKEK{KEK: w.main, version: "9"}
		m, _ := w.running(func(c *dek.Config) { c.KEKs[main] = liar })
		s := w.sealer(m)
		for range 20 {
			w.seal(s)
			w.pass(dek.DefaultInterval)
		}
		if n := len(w.records()); n != 2 {
			t.Errorf("got %d records, want the first and one for the version that the KEK claims", n)
		}
	})
}

type lyingKEK struct {
	kek.KEK
	version string
}

func (k *lyingKEK) Version(context.Context) (string, error) { return k.version, nil }

func TestRecoveryKEKIsDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m, recovery)
		w.recovery.Fail(kek.Unavailable)
		first := w.seal(s)
		if n := len(w.record(first.ID()).Wrappings); n != 1 {
			t.Fatalf("got %d wrappings, want the main KEK's alone", n)
		}
		w.pass(2 * dek.DefaultInterval)
		if key := w.seal(s); key != first {
			t.Error("another DEK was made while the recovery KEK is down")
		}
		w.recovery.Fail(0)
		w.pass(dek.DefaultInterval)
		second := w.seal(s)
		if n := len(w.record(second.ID()).Wrappings); second == first || n != 2 {
			t.Errorf("after the recovery KEK is back: got DEK %s with %d wrappings, want another with 2", second.ID(), n)
		}
	})
}

func TestRunTwice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		if err := m.Run(t.Context()); err == nil {
			t.Error("the second Run: no error")
		}
	})
}

func TestWatchGoesOnAfterFailures(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.store.Hook(func(context.Context, string, func()) error { return dek.ErrStoreUnavailable })
		m, _ := w.running()
		w.pass(time.Minute)
		w.store.Hook(nil)
		key := w.seal(w.sealer(m))
		w.pass(10 * time.Second)
		w.store.Remove(key.ID())
		synctest.Wait()
		w.record(key.ID())
	})
}

func TestHealingIsTriedAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		key := w.seal(s)
		w.store.Hook(func(_ context.Context, op string, do func()) error {
			if op == dektest.OpCreate {
				return dek.ErrStoreUnavailable
			}
			do()
			return nil
		})
		w.store.Remove(key.ID())
		w.pass(time.Minute)
		if _, err := s.Key(t.Context()); !errors.Is(err, dek.ErrStoreUnavailable) {
			t.Errorf("Key: got %v, want ErrStoreUnavailable", err)
		}
		w.store.Hook(nil)
		w.pass(10 * time.Second)
		w.record(key.ID())
	})
}

func TestReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager()
		if err := m.Ready(t.Context()); err != nil {
			t.Errorf("with no Sealer: %v", err)
		}
		s := w.sealer(m)
		w.main.Fail(kek.Disabled, kek.OpWrap)
		for range 3 {
			if err := m.Ready(t.Context()); kek.ClassOf(err) != kek.Disabled {
				t.Errorf("with a disabled KEK: got %v", err)
			}
		}
		w.wantCalls(1, 0)
		w.main.Fail(0)
		w.pass(dek.DefaultRefusalTime)
		for range 3 {
			if err := m.Ready(t.Context()); err != nil {
				t.Errorf("with a KEK that works: %v", err)
			}
		}
		if n := len(w.records()); n != 0 {
			t.Errorf("got %d records though nothing was sealed", n)
		}
		key := w.seal(s)
		w.wantCalls(2, 1) // the one that failed, and the one whose DEK seals
		w.store.Remove(key.ID())
		if err := m.Ready(t.Context()); err != nil {
			t.Errorf("after the record was removed: %v", err)
		}
		w.record(key.ID())
	})
}

// TestReadyLongAgo seals for the first time long after a DEK was made for it.
func TestReadyLongAgo(t *testing.T) {
	for name, wait := range map[string]func(w *world){
		"most of its life": func(w *world) { w.pass(dek.DefaultLifetime - time.Hour) },
		"until a rotation": func(w *world) { w.main.Rotate("2"); w.pass(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				m, _ := w.running(func(c *dek.Config) { c.Interval = time.Hour })
				s := w.sealer(m)
				if err := m.Ready(t.Context()); err != nil {
					t.Fatal(err)
				}
				wait(w)
				r := w.record(w.seal(s).ID())
				if got := time.Since(r.Created); got > time.Minute {
					t.Errorf("the DEK is %s old at its first seal", got)
				}
				w.wantCalls(2, 2)
			})
		})
	}
}

func TestReadyAsksTheStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		none, idle, sealing := w.manager(), w.manager(), w.manager()
		w.sealer(idle)
		w.seal(w.sealer(sealing))
		w.store.Hook(func(context.Context, string, func()) error { return dek.ErrStoreUnavailable })
		for name, m := range map[string]*dek.Manager{"without Sealer": none, "with one that is idle": idle, "with one that seals": sealing} {
			if err := m.Ready(t.Context()); !errors.Is(err, dek.ErrStoreUnavailable) {
				t.Errorf("%s: got %v, want ErrStoreUnavailable", name, err)
			}
		}
	})
}

// wantSealing compares what Sealing says of one Sealer.
func wantSealing(t *testing.T, m *dek.Manager, want error) {
	t.Helper()
	states := m.Sealing()
	if len(states) != 1 || states[0].KEK != main || !errors.Is(states[0].Err, want) {
		t.Errorf("Sealing: got %v, want one Sealer with %v", states, want)
	}
}

// TestReadyWhileStoreRefuses has a store that answers but takes no record, as an etcd
// without space does: that is not ready once somebody wanted to seal, and Ready itself
// finds out when it is over.
func TestReadyWhileStoreRefuses(t *testing.T) {
	for name, refusal := range map[string]error{"refuses": errors.New("no space"), "gives no answer": dek.ErrStoreUnavailable} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				m := w.manager()
				s := w.sealer(m)
				w.store.Hook(func(_ context.Context, op string, do func()) error {
					if op == dektest.OpCreate {
						return refusal
					}
					do()
					return nil
				})
				if err := m.Ready(t.Context()); err != nil {
					t.Errorf("before anybody wanted to seal: %v", err)
				}
				wantSealing(t, m, nil)
				if _, err := s.Key(t.Context()); !errors.Is(err, refusal) {
					t.Fatalf("Key: got %v, want %v", err, refusal)
				}
				for range 3 {
					if err := m.Ready(t.Context()); !errors.Is(err, refusal) {
						t.Errorf("Ready: got %v, want %v", err, refusal)
					}
					wantSealing(t, m, refusal)
					w.pass(dek.DefaultRefusalTime)
				}
				w.store.Hook(nil)
				if err := m.Ready(t.Context()); err != nil {
					t.Errorf("when the store takes records again: %v", err)
				}
				wantSealing(t, m, nil)
				if _, ok := s.TryKey(); !ok {
					t.Error("no DEK seals though Ready says so")
				}
				w.wantCalls(1, 1)
			})
		})
	}
}

// TestReadyWithALiveDEK has the next DEK fail while one still seals.
func TestReadyWithALiveDEK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		w.seal(w.sealer(m))
		w.main.Rotate("2")
		w.main.Fail(kek.Denied, kek.OpWrap)
		w.pass(dek.DefaultInterval)
		if err := m.Ready(t.Context()); err != nil {
			t.Errorf("Ready: %v", err)
		}
		wantSealing(t, m, nil)
		release := w.held()
		for id := range w.records() {
			w.store.Remove(id)
		}
		synctest.Wait()
		wantSealing(t, m, dek.ErrStoreUnavailable)
		release()
	})
}

// TestUse takes a Sealer out of use whose KEK says no.
func TestUse(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running(func(c *dek.Config) { c.Interval = time.Hour })
		old, err := m.Sealer(recovery, nil)
		if err != nil {
			t.Fatal(err)
		}
		key := w.seal(old)
		s := w.sealer(m)
		m.Use(s)
		w.recovery.Rotate("2")
		w.recovery.Fail(kek.Denied, kek.OpWrap)
		calls := w.recovery.Calls(kek.OpVersion)
		w.pass(dek.DefaultLifetime)
		if err := m.Ready(t.Context()); err != nil {
			t.Errorf("Ready: %v", err)
		}
		wantSealing(t, m, nil)
		if n := w.recovery.Calls(kek.OpVersion) - calls; n != 0 {
			t.Errorf("a KEK that is not in use was asked for its version %d times", n)
		}
		if _, err := old.Key(t.Context()); kek.ClassOf(err) != kek.Denied {
			t.Errorf("Key of a Sealer that is not in use: got %v, want the KEK's denial", err)
		}
		w.opens(m, key)
		m.Use(s, old)
		if err := m.Ready(t.Context()); kek.ClassOf(err) != kek.Denied {
			t.Errorf("Ready with the Sealer in use again: got %v, want the KEK's denial", err)
		}
	})
}

func TestConfig(t *testing.T) {
	good := func() dek.Config { return dek.Config{Store: dektest.NewMemory(), Keyring: keyring} }
	tests := []struct {
		name string
		edit func(c *dek.Config)
		ok   bool
	}{
		{"zero values", func(*dek.Config) {}, true},
		{"no store", func(c *dek.Config) { c.Store = nil }, false},
		{"no name", func(c *dek.Config) { c.Keyring = "" }, false},
		{"name is not UTF-8", func(c *dek.Config) { c.Keyring = "\xff" }, false},
		{"most seals", func(c *dek.Config) { c.MaxSeals = dek.MaxSeals }, true},
		{"too many seals", func(c *dek.Config) { c.MaxSeals = dek.MaxSeals + 1 }, false},
		{"negative seals", func(c *dek.Config) { c.MaxSeals = -1 }, false},
		{"short lifetime", func(c *dek.Config) { c.Lifetime = time.Second }, false},
		{"negative interval", func(c *dek.Config) { c.Interval = -1 }, false},
		{"negative cache", func(c *dek.Config) { c.CacheSize = -1 }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good()
			tt.edit(&c)
			m, err := dek.New(c)
			if (err == nil) != tt.ok {
				t.Errorf("got %v, want an error: %v", err, !tt.ok)
			}
			if m != nil {
				m.Close()
			}
		})
	}
}
