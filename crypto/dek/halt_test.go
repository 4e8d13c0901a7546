package dek_test

import (
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// TestRewrappedWhileHalted has a key expire, so that sealing stops, and another process
// rewrap the DEK by the new version, so that it is not sealed with again: when the KEK
// wraps again, another DEK seals.
func TestRewrappedWhileHalted(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		elsewhere := kektest.NewFake(main, "1")
		other, _ := o.running(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: elsewhere} })
		o.wrapBy(other, main)
		o.pass(dek.DefaultInterval)
		o.main.Fail(kek.Disabled, kek.OpWrap)
		o.pass(dek.DefaultCheckInterval)
		o.want("expired", false, true)
		o.main.Rotate("2") // which this process hears of first, and cannot wrap by yet
		o.pass(dek.DefaultInterval)
		elsewhere.Rotate("2")
		o.pass(dek.DefaultInterval + dek.DefaultRotateDelay)
		o.wantWrappers(o.sealed, "main:2")
		o.main.Fail(0)
		o.pass(dek.DefaultCheckInterval)
		if key := o.seal(o.s); key == o.sealed {
			t.Error("the DEK seals that was rewrapped elsewhere and not proved here")
		}
	})
}

// TestDeniedBeforeTheFirstSeal has a KEK say no between the making of a DEK, by a probe of
// readiness, and the first seal: nothing is sealed, and readiness says so.
func TestDeniedBeforeTheFirstSeal(t *testing.T) {
	for _, ops := range [][]string{{kek.OpWrap}, {kek.OpWrap, kek.OpUnwrap}} {
		inWorld(t, func(t *testing.T, w *world) {
			m, _ := w.running(checking)
			s := w.sealer(m)
			if err := m.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.main.Fail(kek.Denied, ops...)
			w.pass(dek.DefaultCheckInterval + time.Second)
			if _, err := s.Key(t.Context()); kek.ClassOf(err) != kek.Denied {
				t.Errorf("%v denied: Key: got %v, want denied", ops, err)
			}
			if err := m.Ready(t.Context()); kek.ClassOf(err) != kek.Denied {
				t.Errorf("%v denied: Ready: got %v, want denied", ops, err)
			}
			if n := len(w.records()); n != 0 {
				t.Errorf("%v denied: %d records were stored", ops, n)
			}
			w.main.Fail(0)
			w.pass(dek.DefaultCheckInterval)
			w.seal(s)
		})
	}
}

// TestRotatedAndDisabledAtOnce has a version switched off as soon as there is another:
// sealing goes on with that one, without waiting for the DEK to be forgotten.
func TestRotatedAndDisabledAtOnce(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		o.main.Rotate("2")
		o.main.FailVersion("1", kek.Disabled)
		o.pass(2 * dek.DefaultCheckInterval)
		if key := o.seal(o.s); key == o.sealed {
			t.Error("the DEK seals that only the disabled version can open")
		}
		o.pass(dek.DefaultDeniedGrace)
		if _, ok := o.m.TryOpen(o.sealed.ID()); ok {
			t.Error("the DEK of the disabled version was not forgotten")
		}
	})
}

// TestDisabledAfterRotationElsewhere has another process rewrap DEKs that are open here,
// and the older version switched off before all of that was proved here: the DEKs stay
// open, and nothing looks denied.
func TestDisabledAfterRotationElsewhere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		keys := w.deks(5)
		m, _ := w.running(checking)
		for _, key := range keys {
			w.opens(m, key)
		}
		w.pass(dek.DefaultCheckInterval)
		w.main.Rotate("2")
		tool := w.manager()
		w.wrapBy(tool, main)
		if got, err := tool.Rotate(t.Context(), dek.RotateOptions{}); err != nil || len(got.Failed) != 0 {
			t.Fatalf("Rotate: got %+v, %v", got, err)
		}
		w.main.FailVersion("1", kek.Disabled)
		for range 30 {
			w.pass(dek.DefaultCheckInterval)
			if err := m.OpeningDenied(); err != nil {
				t.Fatalf("OpeningDenied: %v", err)
			}
			for _, key := range keys {
				if _, ok := m.TryOpen(key.ID()); !ok {
					t.Fatalf("DEK %s was forgotten", key.ID())
				}
			}
		}
	})
}

// TestDeniedJustAfterOpening has a KEK say no as soon as a DEK is open that no check has
// seen yet: the grace is no longer for it.
func TestDeniedJustAfterOpening(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		m, _ := w.running(checking)
		w.pass(dek.DefaultCheckInterval + time.Second)
		w.opens(m, key)
		w.main.Fail(kek.Denied)
		w.pass(dek.DefaultDeniedGrace)
		if _, ok := m.TryOpen(key.ID()); ok {
			t.Error("the DEK is at hand after the grace")
		}
	})
}
