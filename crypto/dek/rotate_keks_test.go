package dek_test

import (
	"slices"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
)

// TestKEKChange goes to another KEK and back, and drops the one in between.
func TestKEKChange(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		m, stop := w.running()
		w.wrapBy(m, recovery)
		w.pass(dek.DefaultInterval + dek.DefaultRotateDelay + time.Second)
		w.wantWrappers(key, "recovery:1 main:1")
		if _, err := m.Rotate(t.Context(), dek.RotateOptions{DropKEK: recovery}); err == nil {
			t.Error("a KEK that a rule names was dropped")
		}
		w.wrapBy(m, main)
		w.pass(dek.DefaultInterval + dek.DefaultRotateDelay + time.Second)
		w.wantWrappers(key, "recovery:1 main:1")
		stop()

		tool := w.manager(func(c *dek.Config) { delete(c.KEKs, recovery) })
		w.wrapBy(tool, main)
		for _, dry := range []bool{true, false} {
			got, err := tool.Rotate(t.Context(), dek.RotateOptions{DropKEK: recovery, DryRun: dry})
			if err != nil || len(got.Changed) != 1 || !slices.Equal(got.Changed[0].Dropped, []dek.KEKVersion{{KEK: recovery, Version: "1"}}) {
				t.Fatalf("Rotate: got %+v, %v", got, err)
			}
			if want := map[bool]string{true: "recovery:1 main:1", false: "main:1"}[dry]; w.wrappers(key) != want {
				t.Errorf("dry run %v: got %s, want %s", dry, w.wrappers(key), want)
			}
		}
		w.opens(tool, key)

		// A process that was configured before the drop does not undo it, a later one may.
		w.wrapBy(m, main)
		later, _ := w.running()
		w.pass(2 * time.Second)
		w.wrapBy(later, main, recovery)
		w.pass(dek.DefaultInterval + dek.DefaultRotateDelay + time.Second)
		w.wantWrappers(key, "recovery:1 main:1")
	})
}

// TestDropIsNotUndone has a process run on with a configuration from before a drop.
func TestDropIsNotUndone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1, recovery)[0]
		old, _ := w.running()
		w.wrapBy(old, main, recovery)
		w.pass(2 * dek.DefaultInterval)
		tool := w.manager()
		w.wrapBy(tool, main)
		if got, err := tool.Rotate(t.Context(), dek.RotateOptions{DropKEK: recovery}); err != nil || len(got.Failed) != 0 {
			t.Fatalf("Rotate: got %+v, %v", got, err)
		}
		w.pass(24 * time.Hour)
		w.wantWrappers(key, "main:1")
	})
}

// TestDropNeedsAnother keeps the last wrapping that works.
func TestDropNeedsAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1, recovery)[0]
		tool := w.manager()
		w.wrapBy(tool, main)
		w.main.FailVersion("1", kek.Disabled)
		got, err := tool.Rotate(t.Context(), dek.RotateOptions{DropKEK: recovery})
		if err != nil || len(got.Failed) != 1 {
			t.Errorf("Rotate: got %+v, %v, want one failure", got, err)
		}
		w.wantWrappers(key, "main:1 recovery:1")
	})
}

func TestRecoveryKEKComesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.recovery.Fail(kek.Unavailable)
		key := w.deks(1, recovery)[0]
		w.wantWrappers(key, "main:1")
		m, _ := w.running()
		w.wrapBy(m, main, recovery)
		w.pass(time.Hour)
		status, err := m.Status(t.Context())
		if err != nil || len(status.Missing) != 1 || status.Missing[0] != (dek.MissingWrapping{ID: key.ID(), KEK: recovery}) || len(status.KEKs) != 1 {
			t.Errorf("Status: got %+v, %v", status, err)
		}
		if got := m.Wrapped(); len(got) != 2 || got[1] != (dek.Wrapped{KEK: recovery, Missing: 1}) {
			t.Errorf("Wrapped: got %v", got)
		}
		if n := w.ops(); n > 2+2 {
			t.Errorf("%d key operations while the recovery KEK is down", n)
		}
		w.recovery.Fail(0)
		w.pass(2*dek.DefaultInterval + dek.DefaultRotateDelay)
		w.wantWrappers(key, "recovery:1 main:1")
		w.main.Fail(kek.NotFound)
		w.opens(w.manager(), key)
	})
}

// TestRecoveryKEKFailsToWrap has a KEK say its version and wrap nothing.
func TestRecoveryKEKFailsToWrap(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		keys := w.deks(20)
		m, _ := w.running()
		w.wrapBy(m, main, recovery)
		w.recovery.Fail(kek.Denied, kek.OpWrap)
		w.pass(10 * time.Minute)
		w.main.Rotate("2") // goes on all the same
		w.pass(20 * time.Minute)
		for _, key := range keys {
			w.wantWrappers(key, "main:2")
		}
		before := w.ops()
		w.pass(time.Hour)
		if n := w.ops() - before; n > 60 {
			t.Errorf("%d key operations in an hour", n)
		}
		w.recovery.Fail(0)
		w.pass(10 * time.Minute)
		for _, key := range keys {
			w.wantWrappers(key, "recovery:1 main:2")
		}
	})
}
