package dek_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

func TestOpenElsewhere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		m := w.manager()
		if _, ok := m.TryOpen(sealed.ID()); ok {
			t.Error("TryOpen has a DEK that was never opened")
		}
		w.opens(m, sealed)
		if _, ok := m.TryOpen(sealed.ID()); !ok {
			t.Error("TryOpen does not have the DEK that was opened")
		}
		mine := w.seal(w.sealer(m))
		if mine.ID() == sealed.ID() {
			t.Error("a process seals with a DEK that another one made")
		}
		w.wantCalls(2, 3) // two DEKs made and proved, one opened
	})
}

func TestOpenByMany(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		m := w.manager()
		before := w.main.Calls(kek.OpUnwrap)
		release := w.main.Block(kek.OpUnwrap)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error)
		go func() { _, err := m.OpenKey(ctx, sealed.ID()); first <- err }()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { w.opens(m, sealed) })
		}
		synctest.Wait()
		cancel() // the one that began it
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that ended: got %v", err)
		}
		release()
		wg.Wait()
		if n := w.main.Calls(kek.OpUnwrap) - before; n != 1 {
			t.Errorf("got %d unwraps, want 1", n)
		}
	})
}

func TestUnwrapTimesOut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		m := w.manager(func(c *dek.Config) { c.KEKTimeout = 3 * time.Second })
		release := w.main.Block(kek.OpUnwrap)
		defer release()
		began := time.Now()
		if _, err := m.OpenKey(t.Context(), sealed.ID()); kek.ClassOf(err) != kek.Unavailable {
			t.Errorf("OpenKey: got %v, want an unavailable KEK", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("OpenKey took %s, want 3s", took)
		}
	})
}

// calls counts what a store is asked.
func (w *world) calls(op string) func() int {
	var mu sync.Mutex
	n := 0
	w.store.Hook(func(_ context.Context, got string, do func()) error {
		mu.Lock()
		if got == op {
			n++
		}
		mu.Unlock()
		do()
		return nil
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestUnknownDEK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager()
		gets := w.calls(dektest.OpGet)
		id := dektest.ID(1)
		for range 10 {
			_, err := m.OpenKey(t.Context(), id)
			if e, ok := errors.AsType[*dek.Error](err); !ok || e.ID != id || !errors.Is(err, dek.ErrUnknownDEK) {
				t.Fatalf("OpenKey: got %v, want ErrUnknownDEK of %s", err, id)
			}
		}
		if n := gets(); n != 1 {
			t.Errorf("got %d reads of the store, want 1", n)
		}
		w.pass(dek.DefaultRefusalTime)
		if _, err := m.OpenKey(t.Context(), id); !errors.Is(err, dek.ErrUnknownDEK) {
			t.Errorf("OpenKey: got %v, want ErrUnknownDEK", err)
		}
		if n := gets(); n != 2 {
			t.Errorf("after a while: got %d reads of the store, want 2", n)
		}
		w.wantCalls(0, 0)
	})
}

func TestRecordComesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		r := w.record(sealed.ID())
		w.store.Remove(sealed.ID())
		m, _ := w.running()
		if _, err := m.OpenKey(t.Context(), sealed.ID()); !errors.Is(err, dek.ErrUnknownDEK) {
			t.Fatalf("OpenKey: got %v, want ErrUnknownDEK", err)
		}
		w.put(sealed.ID(), r)
		synctest.Wait()
		w.opens(m, sealed) // at once: the watch says that there is news
	})
}

func TestKEKIsDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		m := w.manager()
		before := w.main.Calls(kek.OpUnwrap)
		w.main.Fail(kek.Unavailable)
		for range 10 {
			if _, err := m.OpenKey(t.Context(), sealed.ID()); kek.ClassOf(err) != kek.Unavailable {
				t.Fatalf("OpenKey: got %v, want an unavailable KEK", err)
			}
		}
		if n := w.main.Calls(kek.OpUnwrap) - before; n != 1 {
			t.Errorf("got %d unwraps, want 1", n)
		}
		w.main.Fail(0)
		w.pass(time.Second)
		w.opens(m, sealed)
		w.main.Fail(kek.Unavailable)
		w.opens(m, sealed) // what is cached serves on
	})
}

func TestStoreIsDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		m := w.manager()
		w.store.Hook(func(ctx context.Context, _ string, _ func()) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if _, err := m.OpenKey(t.Context(), sealed.ID()); !errors.Is(err, dek.ErrStoreUnavailable) {
			t.Errorf("OpenKey: got %v, want ErrStoreUnavailable", err)
		}
		w.store.Hook(nil)
		w.opens(m, sealed) // at once
	})
}

func TestClose(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sealed := w.seal(w.sealer(w.manager()))
		m := w.manager()
		s := w.sealer(m)
		w.seal(s)
		release := w.main.Block()
		defer release()
		waits := make(chan error)
		go func() { _, err := m.OpenKey(context.Background(), sealed.ID()); waits <- err }()
		synctest.Wait()
		go m.Close()
		if err := <-waits; err == nil {
			t.Error("OpenKey: no error from a Manager that is closed")
		}
		synctest.Wait()
		_, errOpen := m.OpenKey(t.Context(), dektest.ID(9))
		_, errSeal := s.Key(t.Context())
		for _, err := range []error{errOpen, errSeal} {
			if !errors.Is(err, dek.ErrClosed) {
				t.Errorf("after Close: got %v, want ErrClosed", err)
			}
		}
	})
}

func TestObserver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager()
		sealed := w.seal(w.sealer(m))
		m.TryOpen(sealed.ID())
		m.TryOpen(envelope.ID{})
		_, _ = m.OpenKey(t.Context(), envelope.ID{})
		w.recovery.Fail(kek.Denied)
		_, _ = w.sealer(m, recovery).Key(t.Context())
		w.seen.mu.Lock()
		defer w.seen.mu.Unlock()
		if w.seen.hits != 1 || w.seen.misses != 1 || w.seen.created != 2 {
			t.Errorf("got %d hits, %d misses, %d DEKs created, want 1, 1 and 2", w.seen.hits, w.seen.misses, w.seen.created)
		}
		for label, want := range map[string]int{"main wrap ok": 2, "main unwrap ok": 2, "recovery wrap denied": 1} {
			if got := w.seen.calls[label]; got != want {
				t.Errorf("%s: got %d calls, want %d", label, got, want)
			}
		}
	})
}

// TestCacheIsNeverSmallerThanKeyring has every way in which a record becomes known.
func TestCacheIsNeverSmallerThanKeyring(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		small := func(c *dek.Config) { c.CacheSize = 1 }
		watched := []*envelope.Key{w.seal(w.sealer(w.manager())), w.seal(w.sealer(w.manager()))}
		m, stop := w.running(small)
		stop()
		all := append(watched, w.seal(w.sealer(w.manager())), w.seal(w.sealer(m)), w.seal(w.sealer(m, recovery)))
		for _, key := range all {
			w.opens(m, key)
		}
		for _, key := range all {
			if _, ok := m.TryOpen(key.ID()); !ok {
				t.Errorf("DEK %s was dropped though its record is in the keyring", key.ID())
			}
		}
	})
}
