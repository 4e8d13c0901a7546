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

func TestKEKFailures(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager())
		w.main.Fail(kek.Denied, kek.OpWrap)
		for range 10 {
			if _, err := s.Key(t.Context()); kek.ClassOf(err) != kek.Denied {
				t.Fatalf("Key: got %v, want a denial", err)
			}
		}
		w.wantCalls(1, 0)
		w.main.Fail(kek.Unavailable, kek.OpWrap)
		w.pass(dek.DefaultRefusalTime)
		for range 10 {
			if _, err := s.Key(t.Context()); kek.ClassOf(err) != kek.Unavailable {
				t.Fatalf("Key: got %v, want an unavailable KEK", err)
			}
		}
		w.wantCalls(2, 0)
		w.main.Fail(0)
		w.pass(time.Second)
		w.seal(s)
		w.wantCalls(3, 1)
	})
}

func TestFailedProof(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager())
		w.main.Swap(func(got []byte) []byte { got[0] ^= 1; return got })
		if _, err := s.Key(t.Context()); !errors.Is(err, dek.ErrMismatch) || kek.ClassOf(err) != kek.Corrupt {
			t.Errorf("Key: got %v, want ErrMismatch", err)
		}
		if n := len(w.records()); n != 0 {
			t.Errorf("got %d records of a DEK that was not proved", n)
		}
	})
}

func TestHangingKEK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager())
		release := w.main.Block(kek.OpWrap)
		defer release()
		began := time.Now()
		if _, err := s.Key(t.Context()); kek.ClassOf(err) != kek.Unavailable {
			t.Errorf("Key: got %v, want an unavailable KEK", err)
		}
		if took := time.Since(began); took != dek.DefaultKEKTimeout {
			t.Errorf("Key took %s, want %s", took, dek.DefaultKEKTimeout)
		}
	})
}

// TestRecoveryKEKHangs has a KEK for recovery not answer while a DEK is made: who wants to
// seal does not wait for as long as for the KEK itself, and the wrapping comes later.
func TestRecoveryKEKHangs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		release := w.recovery.Block()
		m, _ := w.running()
		w.wrapBy(m, main, recovery)
		began := time.Now()
		key := w.seal(w.sealer(m, recovery))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the first seal took %s", took)
		}
		release()
		w.pass(2*dek.DefaultInterval + dek.DefaultRotateDelay)
		w.wantWrappers(key, "recovery:1 main:1")
	})
}

func TestStoreFailures(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager())
		w.store.Hook(func(_ context.Context, op string, do func()) error {
			if op == dektest.OpCreate {
				return dek.ErrStoreUnavailable
			}
			do()
			return nil
		})
		for range 3 {
			if _, err := s.Key(t.Context()); !errors.Is(err, dek.ErrStoreUnavailable) {
				t.Fatalf("Key: got %v, want ErrStoreUnavailable", err)
			}
		}
		w.store.Hook(nil)
		w.seal(s)
		w.wantCalls(1, 1) // the DEK that could not be stored is still good
	})
}

func TestAnswerOfStoreIsLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager())
		w.store.Hook(func(_ context.Context, op string, do func()) error {
			do()
			if op == dektest.OpCreate {
				return dek.ErrStoreUnavailable
			}
			return nil
		})
		if _, err := s.Key(t.Context()); !errors.Is(err, dek.ErrStoreUnavailable) {
			t.Fatalf("Key: got %v, want ErrStoreUnavailable", err)
		}
		key := w.seal(s) // Create says that it is there, and it is the same
		if records := w.records(); len(records) != 1 || records[key.ID()] == nil {
			t.Errorf("got %d records, want that of the DEK alone", len(records))
		}
		w.wantCalls(1, 1)
	})
}

// TestKilled ends a process between wrapping a DEK and storing its record, and between
// storing it and hearing of it. What was persisted is nothing, and a record under which
// nothing was sealed.
func TestKilled(t *testing.T) {
	for _, stored := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			m := w.manager()
			w.store.Hook(func(ctx context.Context, op string, do func()) error {
				if op != dektest.OpCreate {
					do()
					return nil
				}
				if stored {
					do()
				}
				<-ctx.Done()
				return ctx.Err()
			})
			ended := make(chan error)
			go func() {
				_, err := w.sealer(m).Key(context.Background())
				ended <- err
			}()
			synctest.Wait()
			m.Close()
			if err := <-ended; err == nil {
				t.Error("a DEK was handed out whose record is not known to be stored")
			}
			w.store.Hook(nil)
			before := len(w.records())
			if want := map[bool]int{false: 0, true: 1}[stored]; before != want {
				t.Errorf("got %d records, want %d", before, want)
			}
			again := w.manager()
			w.opens(again, w.seal(w.sealer(again)))
			if n := len(w.records()); n != before+1 {
				t.Errorf("got %d records after the restart, want %d: only a DEK of its own making seals", n, before+1)
			}
		})
	}
}

func TestCallerEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager())
		release := w.main.Block(kek.OpWrap)
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error), make(chan error)
		go func() { _, err := s.Key(ctx); first <- err }()
		synctest.Wait()
		go func() { _, err := s.Key(context.Background()); second <- err }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that ended: got %v", err)
		}
		release()
		if err := <-second; err != nil {
			t.Errorf("the caller that goes on: got %v", err)
		}
		w.wantCalls(1, 1)
	})
}

// slowKEK takes its time for everything.
type slowKEK struct {
	kek.KEK
	takes time.Duration
}

func (k *slowKEK) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	time.Sleep(k.takes)
	return k.KEK.Wrap(ctx, dek)
}

func (k *slowKEK) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	time.Sleep(k.takes)
	return k.KEK.Unwrap(ctx, w)
}

// TestSlowKEK has a KEK take 18 s for each call, as a vault was seen to for hours, and as
// long as kek/azure waits for two tries.
func TestSlowKEK(t *testing.T) {
	for _, takes := range []time.Duration{18 * time.Second, 30 * time.Second} {
		inWorld(t, func(t *testing.T, w *world) {
			slow := func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: &slowKEK{w.main, takes}} }
			m, _ := w.running(slow, checking)
			key := w.seal(w.sealer(m))
			other, _ := w.running(slow, checking)
			w.opens(other, key)
			w.pass(10 * time.Minute)
			for _, h := range m.Health() {
				if h.Sealing.Class != 0 || h.Opening.Class != 0 || !h.Opening.Checked {
					t.Errorf("%s: its health is %+v, want good", takes, h)
				}
			}
		})
	}
}
