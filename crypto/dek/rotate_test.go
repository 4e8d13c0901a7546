package dek_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
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
				var mu sync.Mutex // guards calls and reached: records are rewrapped two at once
				w.store.Hook(func(_ context.Context, _ string, do func()) error {
					mu.Lock()
					defer mu.Unlock()
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

// TestClaimIsBounded has a claim in a record that says it lasts for years, as a clock that
// is wrong leaves it: the record is rewrapped all the same.
func TestClaimIsBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		w.main.Rotate("2")
		r := w.record(key.ID())
		r.Claim = &dek.Claim{By: "somebody", Until: time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)}
		w.put(key.ID(), r)
		tool := w.manager()
		w.wrapBy(tool, main)
		if got, err := tool.Rotate(t.Context(), dek.RotateOptions{}); err != nil || len(got.Failed) != 0 {
			t.Errorf("Rotate: got %+v, %v", got, err)
		}
		w.wantWrappers(key, "main:2")
	})
}
