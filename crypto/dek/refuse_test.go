package dek_test

import (
	"errors"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
)

// TestRefusedRecords opens records that were tampered with, or are not this keyring's.
func TestRefusedRecords(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(w *world, r *dek.Record) // the record that will be in the store
		edit  func(c *dek.Config)           // of the Manager that opens
		want  error
	}{
		{"another DEK's wrapping", func(w *world, r *dek.Record) {
			r.Wrappings = w.record(w.seal(w.sealer(w.manager())).ID()).Wrappings
		}, nil, dek.ErrMismatch},
		{"another DEK's record", func(w *world, r *dek.Record) {
			*r = *w.record(w.seal(w.sealer(w.manager())).ID())
		}, nil, dek.ErrBadRecord},
		{"another keyring's record", nil, func(c *dek.Config) { c.Keyring = "another" }, dek.ErrBadRecord},
		{"another keyring's record renamed", func(_ *world, r *dek.Record) { r.Keyring = "another" },
			func(c *dek.Config) { c.Keyring = "another" }, dek.ErrMismatch},
		{"made without the authentication key", nil, func(c *dek.Config) { c.AuthKey = []byte("secret") }, dek.ErrMismatch},
		{"no KEK of it", nil, func(c *dek.Config) { delete(c.KEKs, main) }, dek.ErrNoKEK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				sealed := w.seal(w.sealer(w.manager()))
				r := w.record(sealed.ID())
				if tt.spoil != nil {
					tt.spoil(w, r)
				}
				w.put(sealed.ID(), r)
				m := w.manager(func(c *dek.Config) {
					if tt.edit != nil {
						tt.edit(c)
					}
				})
				before := w.main.Calls(kek.OpUnwrap)
				for range 10 {
					if _, err := m.OpenKey(t.Context(), sealed.ID()); !errors.Is(err, tt.want) {
						t.Fatalf("OpenKey: got %v, want %v", err, tt.want)
					}
				}
				if n := w.main.Calls(kek.OpUnwrap) - before; n > 1 {
					t.Errorf("got %d unwraps, want the refusal remembered", n)
				}
			})
		})
	}
}

func TestAuthKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		withKey := func(key string) func(*dek.Config) {
			return func(c *dek.Config) { c.AuthKey = []byte(key) }
		}
		sealed := w.seal(w.sealer(w.manager(withKey("one"))))
		w.opens(w.manager(withKey("one")), sealed)
		for _, m := range []*dek.Manager{w.manager(withKey("two")), w.manager()} {
			if _, err := m.OpenKey(t.Context(), sealed.ID()); !errors.Is(err, dek.ErrMismatch) {
				t.Errorf("OpenKey with another authentication key: got %v, want ErrMismatch", err)
			}
		}
	})
}

func TestAnyWrappingOpens(t *testing.T) {
	tests := []struct {
		name           string
		main, recovery kek.Class
		want           kek.Class
	}{
		{"both", 0, 0, 0},
		{"main denied", kek.Denied, 0, 0},
		{"main down", kek.Unavailable, 0, 0},
		{"recovery deleted", 0, kek.NotFound, 0},
		{"both deny", kek.Denied, kek.NotFound, kek.Denied},
		{"one denies, one is down", kek.Denied, kek.Unavailable, kek.Unavailable},
		{"one is throttled, one denies", kek.Throttled, kek.Disabled, kek.Throttled},
		{"one is corrupt, one denies", kek.Denied, kek.Corrupt, kek.Corrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				sealed := w.seal(w.sealer(w.manager(), recovery))
				if n := len(w.record(sealed.ID()).Wrappings); n != 2 {
					t.Fatalf("got %d wrappings, want 2", n)
				}
				m := w.manager()
				w.main.Fail(tt.main)
				w.recovery.Fail(tt.recovery)
				key, err := m.OpenKey(t.Context(), sealed.ID())
				if got := kek.ClassOf(err); got != tt.want || (key == nil) != (err != nil) {
					t.Errorf("OpenKey: got %v, %v, want class %v", key, err, tt.want)
				}
			})
		})
	}
}

func TestFailingKEKIsAskedLast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		one := w.seal(w.sealer(w.manager(), recovery))
		two := w.seal(w.sealer(w.manager(), recovery))
		m := w.manager()
		w.main.Fail(kek.Unavailable, kek.OpUnwrap)
		w.opens(m, one)
		before := w.main.Calls(kek.OpUnwrap)
		w.opens(m, two)
		if n := w.main.Calls(kek.OpUnwrap) - before; n != 0 {
			t.Errorf("a KEK that just failed was asked %d times though another one works", n)
		}
	})
}

// TestStaleRecord opens a DEK that was rewrapped since its record was last read.
func TestStaleRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		m, stop := w.running()
		stop() // it knows the record by now, and hears of nothing from now on
		w.main.Rotate("2")
		w.put(sealed.ID(), w.rewrapped(w.record(sealed.ID())))
		w.main.FailVersion("1", kek.NotFound)
		w.opens(m, sealed)
	})
}
