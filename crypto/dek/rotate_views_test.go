package dek_test

import (
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// TestDifferentViews has two processes differ for good in which version is the current
// one, as two do whose configurations name different vaults or versions.
func TestDifferentViews(t *testing.T) {
	for _, knows := range []bool{true, false} {
		inWorld(t, func(t *testing.T, w *world) {
			first := w.deks(1)[0]
			other := kektest.NewFake(main, "2")
			if !knows { // they cannot open each other's
				w.main.FailVersion("2", kek.NotFound)
				other.FailVersion("1", kek.NotFound)
			}
			a, _ := w.running()
			b, _ := w.running(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: other} })
			w.wrapBy(a, main)
			w.wrapBy(b, main)
			second := w.seal(w.sealer(b))
			w.pass(6 * time.Hour)
			updates := w.updates()
			w.pass(7 * 24 * time.Hour)
			if n := updates.Load(); n != 0 {
				t.Errorf("knowing each other's version %v: %d updates in a week, want none", knows, n)
			}
			for m, key := range map[*dek.Manager]*envelope.Key{a: first, b: second} {
				w.opens(m, key)
			}
		})
	}
}

// TestVersionIsRolledBack goes back to the older version, which the records follow.
func TestVersionIsRolledBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		a, _ := w.running()
		w.wrapBy(a, main)
		w.pass(dek.DefaultInterval)
		for _, version := range []string{"2", "1", "2", "1"} {
			w.main.Rotate(version)
			w.pass(2*dek.DefaultInterval + dek.DefaultRotateDelay)
			// the first return finds that version 1 was dropped once
			w.opens(w.manager(), key)
			if !strings.Contains(w.wrappers(key), "main:"+version) {
				t.Errorf("got %s, want %s among them", w.wrappers(key), version)
			}
		}
	})
}

// TestStaleViewDoesNotUndo lets one process believe an older version for a while.
func TestStaleViewDoesNotUndo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		stale := kektest.NewFake(main, "1")
		a, _ := w.running()
		b, _ := w.running(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: stale} })
		w.wrapBy(a, main)
		w.wrapBy(b, main)
		w.pass(dek.DefaultInterval)
		w.main.Rotate("2")
		w.pass(2 * dek.DefaultInterval)
		w.wantWrappers(key, "main:2")
		updates := w.updates()
		w.pass(24 * time.Hour)
		stale.Rotate("2")
		w.pass(24 * time.Hour)
		w.wantWrappers(key, "main:2")
		if n := updates.Load(); n != 0 {
			t.Errorf("%d updates after the rotation, want none", n)
		}
	})
}

// TestUnknownVersionIsKept has a KEK not unwrap by its older version, while the other one
// works.
func TestUnknownVersionIsKept(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1, recovery)[0]
		w.main.Rotate("2")
		w.main.FailVersion("1", kek.NotFound)
		tool := w.manager()
		w.wrapBy(tool, main, recovery)
		if got, err := tool.Rotate(t.Context(), dek.RotateOptions{}); err != nil || len(got.Failed) != 0 {
			t.Errorf("Rotate: got %+v, %v", got, err)
		}
		w.wantWrappers(key, "main:2 main:1 recovery:1")
	})
}

// TestPutBackIsNotUndone has one process need the version that another one drops: it puts
// it back, once, and it stays.
func TestPutBackIsNotUndone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		needy := kektest.NewFake(main, "1")
		needy.FailVersion("2", kek.NotFound)
		a, _ := w.running()
		b, _ := w.running(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: needy} })
		w.wrapBy(a, main)
		w.wrapBy(b, main)
		w.pass(dek.DefaultInterval)
		w.main.Rotate("2")
		w.pass(2 * time.Hour)
		before := w.wrappers(key)
		updates := w.updates()
		w.pass(24 * time.Hour)
		if n := updates.Load(); n > 2 || w.wrappers(key) != before {
			t.Errorf("%d updates in a day, %s became %s, want a claim that is given back at most", n, before, w.wrappers(key))
		}
		if got := w.wrappers(key); !strings.Contains(got, "main:1") || !strings.Contains(got, "main:2") {
			t.Errorf("got %s, want both versions", got)
		}
		w.opens(b, key)
	})
}

// TestOrderFromBehind has a person order a rotation where the KEK still names the version
// before: nothing is removed, and those who know better put it right.
func TestOrderFromBehind(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		m, _ := w.running()
		w.wrapBy(m, main)
		w.pass(dek.DefaultInterval)
		w.main.Rotate("2")
		w.pass(2 * dek.DefaultInterval)
		w.wantWrappers(key, "main:2")
		tool := w.manager(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: kektest.NewFake(main, "1")} })
		w.wrapBy(tool, main)
		if got, err := tool.Rotate(t.Context(), dek.RotateOptions{}); err != nil || len(got.Failed) != 0 {
			t.Errorf("Rotate: got %+v, %v", got, err)
		}
		w.wantWrappers(key, "main:1 main:2")
		w.pass(2 * dek.DefaultInterval)
		w.wantWrappers(key, "main:2")
	})
}
