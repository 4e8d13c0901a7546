package azure_test

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// However many questions one call has to ask, and whoever it waits for, it takes no
// longer than Timeout.
func TestDeadlineInAll(t *testing.T) {
	slow := emulator.Fault{Delay: 18 * time.Second} // each question is within its own deadline
	for _, r := range []struct {
		name   string
		fault  emulator.Fault
		change func(*azure.Config)
		spoil  func(t *testing.T, l *lab, k *azure.KEK)
	}{
		{"the version has to be found first", slow, nil, nil},
		{"the key has to be made, and its policy", slow, managed, func(_ *testing.T, l *lab, _ *azure.KEK) { l.vault.Delete("etcd"); l.vault.Purge("etcd") }},
		{"the version is switched off, and the vault slow", slow, nil, func(t *testing.T, l *lab, k *azure.KEK) {
			must(t, k)
			l.vault.SetEnabled("etcd", "", false)
		}},
		{"the vault hangs", emulator.Fault{Hang: true}, nil, nil},
	} {
		t.Run(r.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				l := newLab(t)
				k := l.open(t, r.change)
				if r.spoil != nil {
					r.spoil(t, l, k)
				}
				l.Inject(r.fault)
				var group sync.WaitGroup
				for range 5 {
					group.Go(func() {
						var err error
						if d := took(func() { _, err = k.Wrap(t.Context(), testDEK) }); d > azure.DefaultTimeout+time.Second {
							t.Errorf("%v after %v", err, d)
						}
						var e *kek.Error
						if !errors.As(err, &e) || e.Op != kek.OpWrap {
							t.Errorf("%v, want the failure of a %s", err, kek.OpWrap)
						}
					})
				}
				group.Wait()
			})
		})
	}
}

// Callers that wait for the same question share its failure.
func TestFirstVersionIsAskedForOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		fault := l.Inject(emulator.ForbiddenByRBAC(emulator.OpGet))
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				_, err := k.Wrap(t.Context(), testDEK)
				wants(t, "wrapping", err, kek.Denied, "ForbiddenByRbac")
			})
		}
		group.Wait()
		if n := fault.Hits(); n > 2 {
			t.Errorf("the vault was asked %d times", n)
		}
	})
}

// The login service is a service like the vault: it is asked once more at most, a try
// that failed on the way to it is no refusal of a token, and it is left alone when it
// throttles.
func TestLoginTries(t *testing.T) {
	for _, r := range []struct {
		name   string
		fault  emulator.Fault
		tries  int
		again  int // tries of calls in the minute after it
		class  kek.Class
		status int
	}{
		{"wrong secret", emulator.Fault{Op: emulator.OpToken, Status: 401, ContentType: "application/json", Body: `{"error":"invalid_client","error_codes":[7000215]}`}, 1, 60, kek.Unavailable, 0},
		{"503", emulator.ServerError(emulator.OpToken, 503), 2, 120, kek.Unavailable, 0},
		{"broken off", emulator.Fault{Op: emulator.OpToken, Drop: true}, 2, 120, kek.Unavailable, 0},
		{"429", emulator.Throttled(emulator.OpToken, ""), 2, 10, kek.Throttled, 0},
		{"429 with Retry-After", emulator.Throttled(emulator.OpToken, "120"), 1, 0, kek.Throttled, 0},
	} {
		t.Run(r.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				l := newLab(t)
				w := must(t, l.open(t, nil))
				k := l.open(t, nil)
				fault := l.Inject(r.fault)
				ctx, tr := trace(t)
				_, err := k.Unwrap(ctx, w)
				wants(t, "unwrapping", err, r.class, "login by clientSecret failed")
				if n := fault.Hits(); n != r.tries {
					t.Errorf("%d logins, want %d", n, r.tries)
				}
				if tr.Status != r.status {
					t.Errorf("the trace has the status %d of a challenge", tr.Status)
				}
				for range 60 {
					time.Sleep(time.Second)
					_, _ = k.Unwrap(t.Context(), w)
				}
				if n := fault.Hits() - r.tries; n > r.again {
					t.Errorf("%d logins in the minute after it, want at most %d", n, r.again)
				}
				fault.Clear()
				time.Sleep(3 * time.Minute)
				opens(t, k, w)
			})
		})
	}
}

// A connection that breaks after the challenge is no refusal of a token.
func TestBrokenOffAfterTheChallenge(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		w := must(t, l.open(t, nil))
		k := l.open(t, nil)
		l.ForgetCalls()
		l.Inject(emulator.Fault{Op: emulator.OpUnwrap, Drop: true})
		ctx, tr := trace(t)
		_, err := k.Unwrap(ctx, w)
		wants(t, "unwrapping", err, kek.Unavailable, "no answer from the vault")
		if tr.Status != 0 || l.Count(emulator.OpToken) != 1 {
			t.Errorf("the trace has the status %d; %d logins", tr.Status, l.Count(emulator.OpToken))
		}
	})
}

// Retry-After may be a date.
func TestRetryAfterIsADate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		w := must(t, k)
		l.Inject(emulator.Fault{Op: emulator.OpUnwrap, Status: 429, Code: "Throttled", Times: 1,
			Header: http.Header{"Retry-After": {time.Now().Add(10 * time.Second).UTC().Format(http.TimeFormat)}}})
		if d := took(func() { opens(t, k, w) }); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
