package dek_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

func TestFirstSeal(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager()
		s := w.sealer(m)
		if _, ok := s.TryKey(); ok {
			t.Error("TryKey has a DEK before one was made")
		}
		key := w.seal(s)
		r := w.record(key.ID())
		if r.Keyring != keyring || len(r.Wrappings) != 1 || r.Wrappings[0].KEK != main || r.Wrappings[0].Version != "1" {
			t.Errorf("record: got %+v", r)
		}
		if got, want := r.SealUntil.Sub(r.Created), dek.DefaultLifetime; got != want {
			t.Errorf("lifetime: got %s, want %s", got, want)
		}
		if again, ok := s.TryKey(); !ok || again != key {
			t.Errorf("TryKey after Key: got %v, %v", again, ok)
		}
		w.opens(m, key)
		w.wantCalls(1, 1)
	})
}

func TestFirstSealByMany(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager())
		release := w.main.Block(kek.OpWrap)
		keys := make([]*envelope.Key, 100)
		var wg sync.WaitGroup
		for i := range keys {
			wg.Go(func() { keys[i] = w.seal(s) })
		}
		synctest.Wait()
		release()
		wg.Wait()
		if got := slices.Compact(keys); len(got) != 1 {
			t.Errorf("got %d DEKs, want 1", len(got))
		}
		if n := len(w.records()); n != 1 {
			t.Errorf("got %d records, want 1", n)
		}
		w.wantCalls(1, 1)
	})
}

func TestSealBound(t *testing.T) {
	const bound, sealers, each = 1000, 16, 500
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager(func(c *dek.Config) { c.MaxSeals = bound }))
		var mu sync.Mutex
		seals := map[envelope.ID]int{}
		var wg sync.WaitGroup
		for range sealers {
			wg.Go(func() {
				mine := map[envelope.ID]int{}
				for range each {
					mine[w.seal(s).ID()]++
				}
				mu.Lock()
				defer mu.Unlock()
				for id, n := range mine {
					seals[id] += n
				}
			})
		}
		wg.Wait()
		if got, want := len(seals), sealers*each/bound; got != want {
			t.Errorf("got %d DEKs, want %d", got, want)
		}
		for id, n := range seals {
			if n != bound {
				t.Errorf("DEK %s: got %d seals, want %d", id, n, bound)
			}
		}
	})
}

func TestSealUntilIsHard(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.sealer(w.manager(func(c *dek.Config) { c.Lifetime = time.Hour }))
		first := w.seal(s)
		until := w.record(first.ID()).SealUntil
		w.pass(time.Until(until) - time.Nanosecond)
		if key, ok := s.TryKey(); !ok || key != first {
			t.Errorf("just before sealUntil: got %v, %v", key, ok)
		}
		w.pass(time.Nanosecond)
		if key, ok := s.TryKey(); ok {
			t.Errorf("at sealUntil: TryKey gives DEK %s", key.ID())
		}
		if second := w.seal(s); second.ID() == first.ID() {
			t.Error("at sealUntil: Key gives the same DEK")
		}
	})
}

func TestNewDEKAheadOfSeals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running(func(c *dek.Config) { c.MaxSeals = 160 })
		s := w.sealer(m)
		first := w.seal(s)
		for range 149 {
			if key, ok := s.TryKey(); !ok || key != first {
				t.Fatal("the first DEK does not seal any more")
			}
		}
		synctest.Wait()
		if key, ok := s.TryKey(); !ok || key == first {
			t.Errorf("after 15/16 of the seals: got %v, %v, want another DEK", key, ok)
		}
	})
}

func TestNewDEKAheadOfTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running(func(c *dek.Config) { c.Interval = time.Hour })
		s := w.sealer(m)
		first := w.seal(s)
		w.pass(dek.DefaultLifetime - 25*time.Hour)
		if key, ok := s.TryKey(); !ok || key != first {
			t.Fatal("the first DEK does not seal any more a day and an hour before its end")
		}
		w.pass(2 * time.Hour)
		second, ok := s.TryKey()
		if !ok || second == first {
			t.Fatalf("less than a day before the end: got %v, %v, want another DEK", second, ok)
		}
	})
}

func TestIdleSealerMakesNoMore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running(func(c *dek.Config) { c.Interval = time.Hour })
		first := w.seal(w.sealer(m))
		w.pass(3 * dek.DefaultLifetime)
		records := w.records()
		if len(records) != 2 || records[first.ID()] == nil {
			t.Errorf("after a long time without seals: got %d records, want the first and one made ahead of its end", len(records))
		}
	})
}

func TestSealers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager(func(c *dek.Config) { c.KEKs["third"] = w.main })
		a, errA := m.Sealer(main, []string{recovery, "third"})
		b, errB := m.Sealer(main, []string{"third", recovery})
		c, errC := m.Sealer(main, nil)
		if err := errors.Join(errA, errB, errC); err != nil {
			t.Fatal(err)
		}
		if a != b || a == c {
			t.Error("there is not exactly one Sealer for each set of KEKs")
		}
		for _, bad := range [][]string{{"unknown"}, {main}, {recovery, recovery}} {
			if _, err := m.Sealer(main, bad); err == nil {
				t.Errorf("Sealer with recovery %q: no error", bad)
			}
		}
	})
}
