package dek_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// checking turns checks on, which most tests do without.
func checking(c *dek.Config) { c.CheckInterval = dek.DefaultCheckInterval }

// outage is a Manager in trouble.
type outage struct {
	*world
	m      *dek.Manager
	s      *dek.Sealer
	sealed *envelope.Key
}

// inOutage runs a test with a Manager that checks its KEKs and has sealed.
func inOutage(t *testing.T, others []string, edit func(*dek.Config), test func(t *testing.T, o *outage)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running(checking, edit)
		o := &outage{world: w, m: m, s: w.sealer(m, others...)}
		o.sealed = w.seal(o.s)
		w.pass(3*dek.DefaultCheckInterval + time.Second)
		test(t, o)
	})
}

func asIs(*dek.Config) {}

// want compares what is possible without asking a KEK: whether the DEK seals, and whether
// it is at hand to open.
func (o *outage) want(when string, seals, opens bool) {
	o.t.Helper()
	_, sealing := o.s.TryKey()
	_, opening := o.m.TryOpen(o.sealed.ID())
	if sealing != seals || opening != opens {
		o.t.Errorf("%s: seals %v, opens %v, want %v, %v", when, sealing, opening, seals, opens)
	}
}

// wantHealth compares what is told of a KEK.
func (o *outage) wantHealth(name string, sealing, opening kek.Class) {
	o.t.Helper()
	for _, h := range o.m.Health() {
		if h.KEK == name && (!h.Sealing.Checked || !h.Opening.Checked || h.Sealing.Class != sealing || h.Opening.Class != opening) {
			o.t.Errorf("the health of %s is %+v, want %s for sealing and %s for opening", name, h, sealing, opening)
		}
	}
}

// TestDenied has each kind of no end sealing within a check interval and opening within
// the grace, and a yes bring both back.
func TestDenied(t *testing.T) {
	for _, class := range []kek.Class{kek.Denied, kek.Disabled, kek.NotFound} {
		t.Run(class.String(), func(t *testing.T) {
			inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
				o.want("before", true, true)
				o.main.Fail(class)
				began := time.Now()
				o.pass(dek.DefaultCheckInterval)
				o.want("after an interval", false, true)
				if _, err := o.s.Key(t.Context()); kek.ClassOf(err) != class || !strings.Contains(err.Error(), "sealing has stopped") {
					t.Errorf("Key: got %v, want %s", err, class)
				}
				if err := o.m.OpeningDenied(); kek.ClassOf(err) != class {
					t.Errorf("OpeningDenied: got %v, want %s", err, class)
				}
				if err := o.m.Sealing()[0].Err; kek.ClassOf(err) != class {
					t.Errorf("Sealing: got %v, want %s", err, class)
				}
				o.wantHealth(main, class, class)
				o.pass(dek.DefaultDeniedGrace - 2*dek.DefaultCheckInterval)
				o.want("a minute before the grace ends", false, true)
				o.pass(dek.DefaultCheckInterval)
				if took := time.Since(began); took > dek.DefaultDeniedGrace {
					t.Fatalf("the test took %s", took)
				}
				o.want("after the grace", false, false)
				if _, err := o.m.OpenKey(t.Context(), o.sealed.ID()); kek.ClassOf(err) != class {
					t.Errorf("OpenKey: got %v, want %s", err, class)
				}
				if err := o.m.OpeningDenied(); kek.ClassOf(err) != class {
					t.Errorf("OpeningDenied after the DEK is gone: got %v, want %s", err, class)
				}
				o.main.Fail(0)
				o.pass(dek.DefaultCheckInterval)
				if err := o.m.OpeningDenied(); err != nil {
					t.Errorf("OpeningDenied afterwards: %v", err)
				}
				o.opens(o.m, o.sealed)
				o.seal(o.s)
			})
		})
	}
}

// TestDeniedForAWhile has a key come back within the grace: nothing was lost, and the same
// DEK seals.
func TestDeniedForAWhile(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		o.main.Fail(kek.Disabled)
		o.pass(5 * time.Minute)
		o.want("denied", false, true)
		o.main.Fail(0)
		o.pass(dek.DefaultCheckInterval)
		o.want("back", true, true)
		if key := o.seal(o.s); key != o.sealed {
			t.Error("another DEK seals")
		}
		o.wantHealth(main, 0, 0)
		if state := o.m.Sealing()[0]; state.Err != nil {
			t.Errorf("Sealing: %v", state.Err)
		}
	})
}

// TestExpired has a key that unwraps and does not wrap.
func TestExpired(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		o.main.Fail(kek.Disabled, kek.OpWrap)
		o.pass(dek.DefaultCheckInterval)
		o.want("expired", false, true)
		o.wantHealth(main, kek.Disabled, 0)
		o.pass(24 * time.Hour)
		o.want("a day later", false, true)
		if err := o.m.OpeningDenied(); err != nil {
			t.Errorf("OpeningDenied: %v", err)
		}
	})
}

// TestUnreachable has DEKs in memory serve for as long as the KEK does not answer.
func TestUnreachable(t *testing.T) {
	for _, class := range []kek.Class{kek.Unavailable, kek.Throttled, kek.Corrupt} {
		t.Run(class.String(), func(t *testing.T) {
			inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
				o.main.Fail(class)
				o.pass(2 * 24 * time.Hour)
				o.want("after two days", true, true)
				o.wantHealth(main, class, class)
				if h := o.m.Health()[0]; time.Since(h.Opening.Since) < 2*24*time.Hour-2*time.Minute {
					t.Errorf("since %s, want two days ago", h.Opening.Since)
				}
			})
		})
	}
}

func TestOfflineLimit(t *testing.T) {
	limited := func(c *dek.Config) { c.OfflineLimit = time.Hour }
	inOutage(t, nil, limited, func(t *testing.T, o *outage) {
		o.main.Fail(kek.Unavailable)
		o.pass(time.Hour - 2*time.Minute)
		o.want("before the limit", true, true)
		o.pass(2 * time.Minute)
		o.want("after the limit", false, false)
		if _, err := o.s.Key(t.Context()); kek.ClassOf(err) != kek.Unavailable {
			t.Errorf("Key: got %v, want an unavailable KEK", err)
		}
		o.main.Fail(0)
		o.pass(dek.DefaultCheckInterval)
		o.opens(o.m, o.sealed)
		o.seal(o.s)
	})
}

// TestSilenceTakesBackNoDenial has somebody cut the line after a key was revoked.
func TestSilenceTakesBackNoDenial(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		o.main.Fail(kek.Denied)
		o.pass(dek.DefaultCheckInterval)
		o.main.Fail(kek.Unavailable)
		o.pass(dek.DefaultCheckInterval)
		o.want("silent after a no", false, true)
		o.wantHealth(main, kek.Denied, kek.Denied)
		o.pass(dek.DefaultDeniedGrace)
		o.want("after the grace", false, false)
	})
}

// TestDenialAfterSilence has a key revoked during an outage: the grace begins when that
// can have been, and not when the outage did.
func TestDenialAfterSilence(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		o.main.Fail(kek.Unavailable)
		o.pass(3 * time.Hour)
		o.main.Fail(kek.Denied)
		o.pass(dek.DefaultCheckInterval)
		o.want("denied at last", false, true)
		o.pass(dek.DefaultDeniedGrace - dek.DefaultCheckInterval)
		o.want("after the grace", false, false)
	})
}

// TestRecoveryKEKCarries has one of two KEKs deny for good: nobody notices, until the other
// one does so too.
func TestRecoveryKEKCarries(t *testing.T) {
	inOutage(t, []string{recovery}, asIs, func(t *testing.T, o *outage) {
		o.main.Fail(kek.NotFound)
		o.pass(24 * time.Hour)
		o.want("one denied", true, true)
		if err := o.m.OpeningDenied(); err != nil {
			t.Errorf("OpeningDenied: %v", err)
		}
		o.wantHealth(main, kek.NotFound, kek.NotFound)
		o.wantHealth(recovery, 0, 0)
		o.recovery.Fail(kek.Unavailable)
		o.pass(24 * time.Hour)
		o.want("one denied, one silent", true, true)
		o.recovery.Fail(kek.Denied)
		o.pass(dek.DefaultCheckInterval)
		o.want("both denied", false, true)
		o.pass(dek.DefaultDeniedGrace)
		o.want("after the grace", false, false)
		o.recovery.Fail(0)
		o.pass(dek.DefaultCheckInterval)
		o.opens(o.m, o.sealed)
	})
}

// TestOldVersionDisabled has an older version switched off: what only that can open is
// forgotten, and the rest goes on.
func TestOldVersionDisabled(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		o.main.Rotate("2")
		o.pass(2 * dek.DefaultInterval)
		second := o.seal(o.s)
		if second == o.sealed {
			t.Fatal("no other DEK was made")
		}
		o.main.FailVersion("1", kek.Disabled)
		o.pass(dek.DefaultDeniedGrace)
		o.want("one version is off", true, false)
		if _, ok := o.m.TryOpen(second.ID()); !ok {
			t.Error("the other version's DEK was dropped")
		}
		o.wantHealth(main, 0, kek.Disabled)
		if h := o.m.Health()[0]; h.Opening.Version != "1" {
			t.Errorf("the version that fares worst is %q, want 1", h.Opening.Version)
		}
		o.main.FailVersion("1", 0)
		o.pass(2 * dek.DefaultCheckInterval)
		if err := o.m.OpeningDenied(); err != nil {
			t.Errorf("OpeningDenied: %v", err)
		}
	})
}

// TestBudget counts what checks cost: two key operations a minute for each KEK in use,
// well or not, and none for others.
func TestBudget(t *testing.T) {
	for _, class := range []kek.Class{0, kek.Denied, kek.Unavailable} {
		inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
			o.main.Fail(class)
			o.pass(dek.DefaultCheckInterval)
			before := o.main.Calls(kek.OpWrap) + o.main.Calls(kek.OpUnwrap)
			for range 8 {
				o.s.Key(t.Context())
				o.m.OpenKey(t.Context(), o.sealed.ID())
				o.pass(dek.DefaultCheckInterval)
			}
			if n := o.main.Calls(kek.OpWrap) + o.main.Calls(kek.OpUnwrap) - before; n != 16 {
				t.Errorf("%s: %d key operations in 8 minutes, want 16", class, n)
			}
			if n := o.recovery.Calls(kek.OpWrap) + o.recovery.Calls(kek.OpUnwrap); n != 0 {
				t.Errorf("%s: %d key operations of a KEK that is not in use", class, n)
			}
		})
	}
}

// TestHangingKEKDelaysNoOther has one KEK hang while the other one denies.
func TestHangingKEKDelaysNoOther(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		other, err := o.m.Sealer(recovery, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.seal(other)
		release := o.main.Block()
		defer release()
		o.recovery.Fail(kek.Denied)
		o.pass(dek.DefaultCheckInterval)
		if _, ok := other.TryKey(); ok {
			t.Error("a KEK that denies still seals")
		}
		o.want("the KEK hangs", true, true)
	})
}

// TestOutageIsWrittenDown has a denial, its end, and one that lasts, in the audit trail.
func TestOutageIsWrittenDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := &trail{KEK: w.main}
		m, _ := w.running(checking, func(c *dek.Config) { c.Auditor = a })
		key := w.seal(w.sealer(m))
		id := key.ID().String()
		w.pass(time.Minute + time.Second)
		a.want(t, "the beginning", "create "+id+" main 1 new DEK ok")
		w.main.Fail(kek.Disabled)
		w.pass(2 * time.Minute)
		a.want(t, "denied", "deny "+id+" main 1 health check disabled")
		w.main.Fail(0)
		w.pass(2 * time.Minute)
		a.want(t, "back", "restore "+id+" main 1 health check ok")
		w.main.Fail(kek.NotFound)
		a.fail(dek.EventDeny, dek.EventDrop)
		w.pass(20 * time.Minute)
		a.want(t, "denied for good", "deny "+id+" main 1 health check not_found", "drop "+id+"   health check not_found")
		if _, ok := m.TryOpen(key.ID()); ok {
			t.Error("the DEK is there, though only its line could not be written")
		}
	})
}

// TestChecksSayWhatTheyAreFor covers the purpose of a check's calls.
func TestChecksSayWhatTheyAreFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := &trail{KEK: w.main}
		m, _ := w.running(checking, func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: a} })
		w.sealer(m)
		w.pass(dek.DefaultCheckInterval + time.Second)
		a.want(t, "without a DEK", "wrap  for health check", "unwrap  for health check")
		id := w.seal(w.sealer(m)).ID().String()
		a.want(t, "a seal", "wrap "+id+" for new DEK", "unwrap "+id+" for proof")
		w.pass(dek.DefaultCheckInterval)
		a.want(t, "with a DEK", "wrap  for health check", "unwrap "+id+" for health check")
	})
}

// TestUseOfAnother leaves a KEK alone that no rule needs any more, but for what it opens.
func TestUseOfAnother(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		o.m.Use()
		wraps, unwraps := o.main.Calls(kek.OpWrap), o.main.Calls(kek.OpUnwrap)
		o.pass(5 * dek.DefaultCheckInterval)
		got := [2]int{o.main.Calls(kek.OpWrap) - wraps, o.main.Calls(kek.OpUnwrap) - unwraps}
		if diff := cmp.Diff([2]int{0, 5}, got); diff != "" {
			t.Errorf("wraps and unwraps differ (-want +got):\n%s", diff)
		}
	})
}

// keeper is a KEK that keeps hold of every DEK that passes it.
type keeper struct {
	kek.KEK

	mu   sync.Mutex // guards deks
	deks [][]byte
}

func (k *keeper) keep(dek []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deks = append(k.deks, dek)
}

func (k *keeper) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	k.keep(dek)
	return k.KEK.Wrap(ctx, dek)
}

func (k *keeper) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	dek, err := k.KEK.Unwrap(ctx, w)
	k.keep(dek)
	return dek, err
}

// TestBytesAreWiped looks at the bytes of every DEK, and of what checks wrap, when they
// are not needed any more.
func TestBytesAreWiped(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		k := &keeper{KEK: w.main}
		m, _ := w.running(checking, func(c *dek.Config) { c.KEKs = map[string]kek.KEK{main: k} })
		s := w.sealer(m)
		w.pass(2 * dek.DefaultCheckInterval) // with a probe
		w.seal(s)
		w.pass(2*dek.DefaultCheckInterval + time.Second) // with a record
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.deks) < 10 {
			t.Errorf("only %d passed the KEK", len(k.deks))
		}
		for i, dek := range k.deks {
			if !bytes.Equal(dek, make([]byte, kek.DEKSize)) {
				t.Errorf("the bytes of call %d are still there", i)
			}
		}
	})
}

// TestPlantedWrappingKeepsNothing has somebody who can write to the store add, to the
// record of a DEK whose key is revoked, a wrapping of something else by a KEK that is well.
func TestPlantedWrappingKeepsNothing(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		other, err := o.m.Sealer(recovery, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.seal(other) // so that the other KEK's version is in use and found well
		record := *o.record(o.sealed.ID())
		record.Wrappings = append(record.Wrappings, o.wrappedBy(recovery, o.recovery, make([]byte, kek.DEKSize)))
		o.put(o.sealed.ID(), &record)
		o.main.Fail(kek.Denied)
		o.pass(dek.DefaultCheckInterval)
		o.want("at the next check", false, true)
		o.pass(dek.DefaultDeniedGrace - dek.DefaultCheckInterval)
		o.want("after the grace", false, false)
		if _, ok := other.TryKey(); !ok {
			t.Error("the other KEK's DEK does not seal")
		}
	})
}

// TestPlantedVersionsDelayNothing has somebody add wrappings by versions that do not exist:
// a denial is still acted upon in time.
func TestPlantedVersionsDelayNothing(t *testing.T) {
	inOutage(t, nil, asIs, func(t *testing.T, o *outage) {
		record := *o.record(o.sealed.ID())
		for i := range dek.MaxWrappings - 1 {
			version := fmt.Sprintf("0%d", i)
			o.main.FailVersion(version, kek.NotFound)
			record.Wrappings = append(record.Wrappings, dek.Wrapping{KEK: main, Version: version, Algorithm: record.Wrappings[0].Algorithm, Ciphertext: []byte("made up")})
		}
		o.put(o.sealed.ID(), &record)
		o.pass(40 * time.Minute)
		o.want("with made-up versions", true, true)
		o.main.Fail(kek.Denied)
		o.pass(dek.DefaultDeniedGrace)
		o.want("after the grace", false, false)
	})
}
