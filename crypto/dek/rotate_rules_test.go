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

// ruled is a world with two rules that have a KEK of their own each.
type ruled struct {
	*world
	m *dek.Manager
}

// underTwoRules runs a test with a Manager of two rules, by the KEKs main and other, with
// KEKs for recovery.
func underTwoRules(t *testing.T, ofMain, ofOther []string, test func(t *testing.T, r *ruled, other *kektest.Fake)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		other := kektest.NewFake("other", "1")
		m, _ := w.running(func(c *dek.Config) {
			c.KEKs = map[string]kek.KEK{main: w.main, recovery: w.recovery, "other": other}
		})
		if err := m.WrapBy(dek.Set{KEK: main, Recovery: ofMain}, dek.Set{KEK: "other", Recovery: ofOther}); err != nil {
			t.Fatal(err)
		}
		test(t, &ruled{w, m}, other)
	})
}

// plant puts wrappings in the place of those that a DEK's record has.
func (r *ruled) plant(key *envelope.Key, wrappings ...dek.Wrapping) {
	r.t.Helper()
	record := *r.record(key.ID())
	record.Wrappings = wrappings
	r.put(key.ID(), &record)
}

// TestPlantedWrappingAddsNoKEK has somebody who can write to the store add a made-up
// wrapping by another rule's KEK: the DEK is not wrapped by that one for it.
func TestPlantedWrappingAddsNoKEK(t *testing.T) {
	underTwoRules(t, nil, nil, func(t *testing.T, r *ruled, other *kektest.Fake) {
		key := r.deks(1)[0]
		good := r.record(key.ID()).Wrappings[0]
		r.plant(key, good, dek.Wrapping{KEK: "other", Version: "0", Algorithm: "x", Ciphertext: []byte("made up")})
		updates := r.updates()
		r.pass(20 * time.Hour)
		if got := r.wrappers(key); strings.Contains(got, "other:1") {
			t.Errorf("the DEK is wrapped by %s", got)
		}
		if n := updates.Load(); n > 4 {
			t.Errorf("%d updates, want a claim or two that are given back", n)
		}
		r.main.Rotate("2") // what has to be done is done all the same
		r.pass(2*dek.DefaultInterval + dek.DefaultRotateDelay)
		if got := r.wrappers(key); !strings.HasPrefix(got, "main:2") || strings.Contains(got, "other:1") {
			t.Errorf("after a rotation: the DEK is wrapped by %s", got)
		}
	})
}

// TestSharedRecoveryKEK leaves a record alone of which only a KEK is left that several
// rules have for recovery.
func TestSharedRecoveryKEK(t *testing.T) {
	shared := []string{recovery}
	underTwoRules(t, shared, shared, func(t *testing.T, r *ruled, _ *kektest.Fake) {
		key := r.seal(r.sealer(r.manager(func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: r.recovery} })))
		planted := r.record(key.ID()).Wrappings[0] // by the shared KEK, so to speak
		planted.KEK = recovery
		r.plant(key, planted)
		r.pass(time.Hour)
		r.wantWrappers(key, "recovery:1")
		got, err := r.m.Rotate(t.Context(), dek.RotateOptions{})
		if err != nil || len(got.Homeless) != 1 {
			t.Errorf("Rotate: got %+v, %v, want the record named", got, err)
		}
		r.opens(r.m, key)
	})
}

// TestRecoveryKEKOfADeadOne has a rule's KEK deleted for good, and another one for
// recovery added to the rule: the DEK gets it, since the first one for recovery shows
// which rule it is of.
func TestRecoveryKEKOfADeadOne(t *testing.T) {
	underTwoRules(t, []string{recovery}, nil, func(t *testing.T, r *ruled, _ *kektest.Fake) {
		key := r.deks(1, recovery)[0]
		r.main.Fail(kek.NotFound)
		third := kektest.NewFake("third", "1")
		next, _ := r.running(func(c *dek.Config) {
			c.KEKs = map[string]kek.KEK{main: r.main, recovery: r.recovery, "other": kektest.NewFake("other", "1"), "third": third}
		})
		if err := next.WrapBy(dek.Set{KEK: main, Recovery: []string{recovery, "third"}}, dek.Set{KEK: "other"}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Hour)
		if got := r.wrappers(key); !strings.Contains(got, "third:1") || strings.Contains(got, "other") {
			t.Errorf("the DEK is wrapped by %s, want the new KEK for recovery among them", got)
		}
	})
}
