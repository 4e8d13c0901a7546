package dek_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// deks has processes of their own make DEKs, and end.
func (w *world) deks(n int, recovery ...string) []*envelope.Key {
	w.t.Helper()
	var keys []*envelope.Key
	for range n {
		m := w.manager()
		keys = append(keys, w.seal(w.sealer(m, recovery...)))
		m.Close()
	}
	return keys
}

// wrapBy says what a Manager's records are to be wrapped by.
func (w *world) wrapBy(m *dek.Manager, kek string, recovery ...string) {
	w.t.Helper()
	if err := m.WrapBy(dek.Set{KEK: kek, Recovery: recovery}); err != nil {
		w.t.Fatal(err)
	}
}

// wrappers lists the KEKs and versions that wrap a DEK, in the record's order.
func (w *world) wrappers(key *envelope.Key) string {
	w.t.Helper()
	return wrappersOf(w.record(key.ID()))
}

func wrappersOf(r *dek.Record) string {
	var list []string
	for _, one := range r.Wrappings {
		list = append(list, one.KEK+":"+one.Version)
	}
	return strings.Join(list, " ")
}

func (w *world) wantWrappers(key *envelope.Key, want string) {
	w.t.Helper()
	if got := w.wrappers(key); got != want {
		w.t.Errorf("DEK %s is wrapped by %s, want %s", key.ID(), got, want)
	}
}

// ops counts the key operations of the main KEK.
func (w *world) ops() int { return w.main.Calls(kek.OpWrap) + w.main.Calls(kek.OpUnwrap) }

// updates counts the store's updates from now on.
func (w *world) updates() *atomic.Int64 {
	var n atomic.Int64
	w.store.Hook(func(_ context.Context, op string, do func()) error {
		if op == dektest.OpUpdate {
			n.Add(1)
		}
		do()
		return nil
	})
	return &n
}

// TestRecordsAreRotated has many processes notice another version at the same moment. Each DEK
// takes three key operations in all, whoever comes first.
func TestRecordsAreRotated(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		keys := w.deks(20)
		var all []*dek.Manager
		for range 5 {
			m, _ := w.running()
			w.wrapBy(m, main)
			all = append(all, m)
		}
		w.pass(2 * dek.DefaultInterval)
		before := w.ops()
		w.main.Rotate("2")
		w.pass(dek.DefaultInterval + dek.DefaultRotateDelay + 5*time.Second)
		for _, key := range keys {
			w.wantWrappers(key, "main:2")
			r := w.record(key.ID())
			if r.Claim != nil || len(r.Dropped) != 1 || r.Dropped[0].Version != "1" {
				t.Errorf("got the claim %v and dropped %v, want none and version 1", r.Claim, r.Dropped)
			}
		}
		if got := w.ops() - before; got != 60 {
			t.Errorf("got %d key operations, want 60", got)
		}
		w.main.FailVersion("1", kek.NotFound)
		for _, m := range all {
			for _, key := range keys {
				w.opens(m, key)
			}
			if got := m.Wrapped(); len(got) != 1 || got[0] != (dek.Wrapped{KEK: main, Current: 20}) {
				t.Errorf("Wrapped: got %v", got)
			}
		}
		// It ends: everybody is content, and only what was put off is proved.
		updates := w.updates()
		w.pass(2 * time.Hour)
		if n := updates.Load(); n != 0 {
			t.Errorf("%d updates after the end of the rotation", n)
		}
	})
}

// TestRotationIsNoticedByWhoStartsLater starts processes that never saw the older version.
func TestRotationIsNoticedByWhoStartsLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		w.main.Rotate("2")
		m, _ := w.running()
		w.wrapBy(m, main)
		w.pass(dek.DefaultRotateLag)
		w.wantWrappers(key, "main:1")
		w.pass(2*dek.DefaultInterval + dek.DefaultRotateDelay)
		w.wantWrappers(key, "main:2")
	})
}

// TestSealingGoesOnThroughRotation rewraps DEKs that seal, one's own and another's.
func TestSealingGoesOnThroughRotation(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, _ := w.running()
		b, _ := w.running()
		var sealers []*dek.Sealer
		var firsts []*envelope.Key
		for _, m := range []*dek.Manager{a, b} {
			w.wrapBy(m, main)
			sealers = append(sealers, w.sealer(m))
			firsts = append(firsts, w.seal(sealers[len(sealers)-1]))
		}
		w.pass(dek.DefaultInterval)
		w.main.Rotate("2")
		w.pass(dek.DefaultInterval + dek.DefaultRotateDelay + 5*time.Second)
		for i, s := range sealers {
			w.wantWrappers(firsts[i], "main:2")
			second := w.seal(s)
			if second == firsts[i] {
				t.Error("no new DEK after the KEK's change")
			}
			w.wantWrappers(second, "main:2")
			w.opens(a, firsts[i])
			w.opens(b, firsts[i])
		}
	})
}

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

// TestSwappedKEKIsNotBelieved has a KEK give another DEK, so that nothing is proved.
func TestSwappedKEKIsNotBelieved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		tool := w.manager()
		w.wrapBy(tool, main)
		w.main.Rotate("2")
		w.main.Swap(func([]byte) []byte { return make([]byte, 32) })
		got, err := tool.Rotate(t.Context(), dek.RotateOptions{})
		if err != nil || len(got.Failed) != 1 || !errors.Is(got.Failed[0].Err, dek.ErrMismatch) {
			t.Errorf("Rotate: got %+v, %v, want ErrMismatch", got, err)
		}
		w.wantWrappers(key, "main:1")
		if r := w.record(key.ID()); r.Claim != nil {
			t.Error("the claim was not given back")
		}
	})
}

// TestRotationIsCutOff ends a process at each of its calls of the store and of the KEK;
// another one finishes.
func TestRotationIsCutOff(t *testing.T) {
	for _, done := range []bool{false, true} { // whether the call has had its effect
		for step := 1; ; step++ {
			reached := false
			inWorld(t, func(t *testing.T, w *world) {
				keys := w.deks(2)
				w.main.Rotate("2")
				ctx, kill := context.WithCancel(t.Context())
				defer kill()
				calls := 0
				w.store.Hook(func(_ context.Context, _ string, do func()) error {
					if ctx.Err() != nil {
						return dek.ErrStoreUnavailable
					}
					if calls++; calls != step {
						do()
						return nil
					}
					reached = true
					if done {
						do()
					}
					kill()
					return dek.ErrStoreUnavailable
				})
				m := w.manager()
				w.wrapBy(m, main)
				_, _ = m.Rotate(ctx, dek.RotateOptions{}) // it was killed
				w.store.Hook(nil)
				for _, key := range keys {
					w.opens(w.manager(), key)
				}
				next := w.manager()
				w.wrapBy(next, main)
				got, err := next.Rotate(t.Context(), dek.RotateOptions{})
				if err != nil || len(got.Failed) != 0 {
					t.Fatalf("step %d: Rotate: got %+v, %v", step, got, err)
				}
				for _, key := range keys {
					w.wantWrappers(key, "main:2")
				}
			})
			if !reached {
				if step < 7 {
					t.Fatalf("only %d steps", step)
				}
				break
			}
		}
	}
}

// TestPostponedProof has somebody who only pretends to rewrap replace a wrapping by a
// useless one: it is found out in time, and nothing is lost meanwhile.
func TestPostponedProof(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		key := w.deks(1)[0]
		synctest.Wait()
		w.opens(m, key)
		w.pass(2 * time.Second)
		r := *w.record(key.ID())
		bad := r.Wrappings[0]
		r.Dropped = []dek.Dropped{{KEK: main, Version: "1", At: r.Created}}
		bad.Version, bad.Ciphertext = "2", make([]byte, 60)
		r.Wrappings = []dek.Wrapping{bad}
		before := w.ops()
		w.put(key.ID(), &r)
		w.pass(dek.DefaultRotateLag - dek.DefaultInterval)
		if n := w.ops() - before; n != 0 {
			t.Errorf("%d key operations, want the proof put off", n)
		}
		w.pass(3 * dek.DefaultInterval)
		w.opens(w.manager(), key)
		if got := w.wrappers(key); !strings.Contains(got, "main:1") {
			t.Errorf("got %s, want the known wrapping put back", got)
		}
	})
}

func TestStatus(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.deks(2)
		m := w.manager()
		w.wrapBy(m, main)
		w.main.Rotate("2")
		w.deks(1)
		versions := func() (current, older dek.VersionStatus) {
			t.Helper()
			s, err := m.Status(t.Context())
			if err != nil || len(s.Versions) != 3 {
				t.Fatalf("Status: got %+v, %v", s, err)
			}
			return s.Versions[0], s.Versions[1]
		}
		current, older := versions()
		if current.Records != 1 || current.Safe() || older.Records != 2 || older.Needed != 2 || older.Safe() || !older.Until.IsZero() {
			t.Errorf("before: got %+v and %+v", current, older)
		}
		w.pass(time.Hour)
		at := time.Now()
		if _, err := m.Rotate(t.Context(), dek.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		current, older = versions()
		if current.Records != 3 || current.Safe() || older.Records != 0 || !older.Safe() || older.Until.Before(at.Truncate(time.Second)) {
			t.Errorf("after: got %+v and %+v", current, older)
		}
		w.store.Put(dektest.ID(1), dektest.Record(dektest.ID(1), 1)) // of another keyring
		if _, older = versions(); older.Safe() {
			t.Errorf("with a record that is unknown: got %+v", older)
		}
	})
}

// TestClaim has a second process come while a first one waits for the KEK.
func TestClaim(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		w.main.Rotate("2")
		first, second := w.manager(), w.manager()
		w.wrapBy(first, main)
		w.wrapBy(second, main)
		release := w.main.Block(kek.OpWrap)
		defer release()
		done := make(chan *dek.Rotation)
		for _, m := range []*dek.Manager{first, second} {
			go func() {
				r, err := m.Rotate(context.Background(), dek.RotateOptions{})
				if err != nil {
					t.Errorf("Rotate: %v", err)
				}
				done <- r
			}()
			w.pass(5 * time.Second)
		}
		if n := w.main.Calls(kek.OpWrap); n != 2 { // the DEK's first, and this
			t.Errorf("got %d wraps, want one by one of both processes", n-1)
		}
		release()
		if n := len((<-done).Changed) + len((<-done).Changed); n != 1 {
			t.Errorf("%d processes changed the record, want 1", n)
		}
		w.wantWrappers(key, "main:2")
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
