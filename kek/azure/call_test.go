package azure_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// took returns how long something takes by the bubble's clock.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func TestOneMoreTry(t *testing.T) {
	for _, r := range []struct {
		name  string
		fault emulator.Fault
		tries int
	}{
		{"500", emulator.ServerError(emulator.OpUnwrap, 500), 2},
		{"502", emulator.ServerError(emulator.OpUnwrap, 502), 2},
		{"503", emulator.ServerError(emulator.OpUnwrap, 503), 2},
		{"504", emulator.ServerError(emulator.OpUnwrap, 504), 2},
		{"408", emulator.ServerError(emulator.OpUnwrap, 408), 2},
		{"broken off", emulator.Fault{Op: emulator.OpUnwrap, Drop: true}, 2},
		{"throttled", emulator.Throttled(emulator.OpUnwrap, ""), 2},
		{"hanging", emulator.Fault{Op: emulator.OpUnwrap, Hang: true}, 2},
		{"forbidden", emulator.ForbiddenByRBAC(emulator.OpUnwrap), 1},
		{"firewall", emulator.ForbiddenByFirewall(emulator.OpUnwrap), 1},
		{"not found", emulator.Fault{Op: emulator.OpUnwrap, Status: 404, Code: "KeyNotFound"}, 1},
		{"HTML", emulator.HTML(emulator.OpUnwrap, 200), 1},
	} {
		t.Run(r.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				l := newLab(t)
				k := l.open(t, nil)
				w := must(t, k)

				fault := l.Inject(r.fault)
				ctx, tr := trace(t)
				if _, err := k.Unwrap(ctx, w); err == nil {
					t.Error("unwrapping worked")
				}
				if fault.Hits() != r.tries || tr.Tries != r.tries {
					t.Errorf("the vault was asked %d times, the trace says %d, want %d", fault.Hits(), tr.Tries, r.tries)
				}
				fault.Clear()
				time.Sleep(time.Minute)

				r.fault.Times = 1
				l.Inject(r.fault)
				if _, err := k.Unwrap(t.Context(), w); (err == nil) != (r.tries == 2) {
					t.Errorf("once only: %v", err)
				}
			})
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for _, r := range []struct {
		name  string
		fault emulator.Fault
		want  time.Duration
	}{
		{"429 in seconds", emulator.Throttled(emulator.OpUnwrap, "7"), 7 * time.Second},
		{"503 in seconds", func() emulator.Fault {
			f := emulator.ServerError(emulator.OpUnwrap, 503)
			f.Header = http.Header{"Retry-After": {"7"}}
			return f
		}(), 7 * time.Second},
		{"429 in milliseconds", func() emulator.Fault {
			f := emulator.Throttled(emulator.OpUnwrap, "")
			f.Header = http.Header{"X-Ms-Retry-After-Ms": {"1500"}}
			return f
		}(), 1500 * time.Millisecond},
	} {
		t.Run(r.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				l := newLab(t)
				k := l.open(t, nil)
				w := must(t, k)
				r.fault.Times = 1
				l.Inject(r.fault)
				if d := took(func() { opens(t, k, w) }); d < r.want || d > r.want+time.Second {
					t.Errorf("it took %v, want %v", d, r.want)
				}
			})
		})
	}
}

// While a vault wants to be left alone, nothing is sent to it: calls that can wait
// do, the others fail at once.
func TestThrottledVaultIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		w := must(t, k)
		fault := l.Inject(emulator.Throttled(emulator.OpUnwrap, "45"))
		if _, err := k.Unwrap(t.Context(), w); kek.ClassOf(err) != kek.Throttled {
			t.Fatalf("%v, want the class %q", err, kek.Throttled)
		}
		fault.Clear()
		l.ForgetCalls()
		if d := took(func() {
			_, err := k.Wrap(t.Context(), testDEK)
			wants(t, "wrapping", err, kek.Throttled, "left alone")
			_, err = k.Unwrap(t.Context(), w)
			wants(t, "unwrapping", err, kek.Throttled)
		}); d != 0 {
			t.Errorf("calls that cannot be answered in time took %v", d)
		}
		time.Sleep(20 * time.Second)
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() { opens(t, k, w) }) // 25 s are left, which the deadline allows
		}
		synctest.Wait()
		if calls := l.Calls(); len(calls) != 0 {
			t.Errorf("the vault was asked: %v", calls)
		}
		group.Wait()
	})
}

// A vault that throttles without saying for how long is asked less and less, and
// soon after it stops everything works.
func TestThrottlingIsBackedOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		w := must(t, k)
		fault := l.Inject(emulator.Throttled("", ""))
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(time.Second) {
			_, err := k.Unwrap(t.Context(), w)
			wants(t, "unwrapping", err, kek.Throttled)
		}
		if hits := fault.Hits(); hits < 10 || hits > 30 {
			t.Errorf("the vault was asked %d times in 10 minutes", hits)
		}
		fault.Clear()
		time.Sleep(80 * time.Second)
		if d := took(func() { opens(t, k, w) }); d != 0 {
			t.Errorf("after that: %v", d)
		}
	})
}

// What a vault says is not believed without end.
func TestRetryAfterIsBounded(t *testing.T) {
	for _, after := range []string{"31536000", "99999999999999999999", "Fri, 31 Dec 2099 23:59:59 GMT", "-5", "soon"} {
		inBubble(t, func(t *testing.T) {
			l := newLab(t)
			k := l.open(t, nil)
			w := must(t, k)
			l.Inject(emulator.Throttled("", after))
			_, err := k.Unwrap(t.Context(), w)
			wants(t, after, err, kek.Throttled)
			l.ClearFaults()
			time.Sleep(6 * time.Minute)
			opens(t, k, w)
		})
	}
}

func TestDeadlines(t *testing.T) {
	hang := emulator.Fault{Op: emulator.OpUnwrap, Hang: true}
	once := hang
	once.Times = 1
	slow := emulator.Fault{Op: emulator.OpUnwrap, Delay: 18 * time.Second}
	for _, r := range []struct {
		name   string
		fault  emulator.Fault
		change func(*azure.Config)
		caller time.Duration // the caller's own deadline
		want   time.Duration
		works  bool
	}{
		{"hanging: both tries, in all", hang, nil, time.Hour, azure.DefaultTimeout, false},
		{"hanging once: the second try answers", once, nil, time.Hour, azure.DefaultTryTimeout, true},
		{"slow as it was seen", slow, nil, time.Hour, 18 * time.Second, true},
		{"slow, with a shorter deadline", slow, func(c *azure.Config) { c.TryTimeout, c.Timeout = 2*time.Second, 3*time.Second }, time.Hour, 3 * time.Second, false},
		{"the caller's deadline", hang, nil, 5 * time.Second, 5 * time.Second, false},
	} {
		t.Run(r.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				l := newLab(t)
				k := l.open(t, r.change)
				w := must(t, k)
				l.Inject(r.fault)
				ctx, cancel := context.WithTimeout(t.Context(), r.caller)
				defer cancel()
				var err error
				d := took(func() { _, err = k.Unwrap(ctx, w) })
				if (err == nil) != r.works || d < r.want || d > r.want+time.Second {
					t.Errorf("%v after %v, want %v", err, d, r.want)
				}
				if err != nil && (!errors.Is(err, context.DeadlineExceeded) || kek.ClassOf(err) != kek.Unavailable) {
					t.Errorf("%v, want a deadline and the class %q", err, kek.Unavailable)
				}
			})
		})
	}
}

// A login that hangs under one call does not hold others beyond their deadlines,
// though the SDK has them wait for it.
func TestLoginOfAnotherCall(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		w := must(t, l.open(t, nil))
		k := l.open(t, nil)
		l.Inject(emulator.Fault{Op: emulator.OpToken, Hang: true})
		var first sync.WaitGroup
		first.Go(func() {
			_, err := k.Unwrap(t.Context(), w)
			wants(t, "the first call", err, kek.Unavailable)
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if d := took(func() {
			_, err := k.Unwrap(ctx, w)
			wants(t, "another call", err, kek.Unavailable, "deadline exceeded")
		}); d > 6*time.Second {
			t.Errorf("another call took %v", d)
		}
		first.Wait()
	})
}

func TestCloseEndsCalls(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		w := must(t, k)
		l.Inject(emulator.Fault{Hang: true})
		done := make(chan error)
		go func() {
			_, err := k.Unwrap(t.Context(), w)
			done <- err
		}()
		synctest.Wait()
		if d := took(func() {
			_ = k.Close()
			wants(t, "a call under way", <-done, kek.Unavailable, "closed")
		}); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

// frozen is a connection that can stop carrying anything, without a word.
type frozen struct {
	net.Conn
	ice *atomic.Bool
}

func (f frozen) Write(p []byte) (int, error) {
	if f.ice.Load() {
		return len(p), nil
	}
	return f.Conn.Write(p)
}

// A connection that died without a word is found out by pings, as with azcore's own
// transport, and the next one works.
func TestDeadConnectionIsFoundOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		var ice *atomic.Bool
		k := l.open(t, func(c *azure.Config) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := l.Dial(ctx, network, address)
				if address != host+":443" {
					return conn, err
				}
				ice = &atomic.Bool{}
				return frozen{conn, ice}, err
			}
		})
		w := must(t, k)
		dead := ice
		dead.Store(true)
		if d := took(func() { opens(t, k, w) }); d > 16*time.Second {
			t.Errorf("it took %v to give the connection up", d)
		}
		if dead == ice {
			t.Error("there was no other connection")
		}
	})
}

// Many first calls at once all log in, once.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t)
	k := l.open(t, nil)
	w := must(t, l.open(t, nil))
	l.ForgetCalls()
	var group sync.WaitGroup
	for range 40 {
		group.Go(func() { opens(t, k, w) })
	}
	group.Wait()
	if n := l.Count(emulator.OpToken); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// The trace matches the vault's log.
func TestTrace(t *testing.T) {
	l := newLab(t)
	k := l.open(t, nil)
	w := must(t, k)
	l.ForgetCalls()
	ctx, tr := trace(t)
	if _, err := k.Unwrap(ctx, w); err != nil {
		t.Fatal(err)
	}
	call := l.Calls()[0]
	if off := time.Since(tr.Date); off < -time.Hour || off > time.Hour {
		t.Errorf("the vault's clock says %v", tr.Date)
	}
	tr.Date = time.Time{}
	want := kek.Trace{KeyID: l.vault.URL() + "/keys/etcd/" + w.Version, Status: 200, RequestID: call.RequestID, ClientRequestID: call.ClientRequestID, Tries: 1}
	if *tr != want || len(tr.ClientRequestID) != 36 || call.UserAgent[:9] != "etcdseal " {
		t.Errorf("got %+v, want %+v; the user agent is %q", *tr, want, call.UserAgent)
	}
	l.Inject(emulator.ForbiddenByRBAC(emulator.OpUnwrap))
	if _, err := k.Unwrap(ctx, w); err == nil {
		t.Fatal("unwrapping worked")
	}
	call = l.Calls()[1]
	want = kek.Trace{KeyID: want.KeyID, Status: 403, Code: "Forbidden/ForbiddenByRbac", RequestID: call.RequestID, ClientRequestID: call.ClientRequestID, Tries: 1}
	tr.Date = time.Time{}
	if *tr != want {
		t.Errorf("got %+v, want %+v", *tr, want)
	}
}
