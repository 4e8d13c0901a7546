package admin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadyz(t *testing.T) {
	none := Handler(Config{})
	mustGet(t, none, "/readyz", 200, "ok\n")
	good := Handler(Config{Checks: []Check{check("etcd", nil), check("keyring", nil)}})
	mustGet(t, good, "/readyz", 200, "ok\n")
	mustGet(t, good, "/readyz?verbose", 200, "[+] etcd ok\n[+] keyring ok\nok\n")
	bad := Handler(Config{Checks: []Check{check("etcd", nil), check("keyring", errors.Join(errors.New("one"), errors.New("two")))}})
	for _, target := range []string{"/readyz", "/readyz?verbose"} {
		mustGet(t, bad, target, 503, "[+] etcd ok\n[-] keyring: one; two\nnot ready\n")
	}
}

// Notes are shown wherever the checks are, and decide nothing.
func TestReadyzNotes(t *testing.T) {
	notes := func() []string { return []string{"kek a: well", "kek b: silent"} }
	good := Handler(Config{Notes: notes, Checks: []Check{check("etcd", nil)}})
	mustGet(t, good, "/readyz", 200, "ok\n")
	mustGet(t, good, "/readyz?verbose", 200, "[+] etcd ok\n[i] kek a: well\n[i] kek b: silent\nok\n")
	bad := Handler(Config{Notes: notes, Checks: []Check{check("etcd", errors.New("gone"))}})
	mustGet(t, bad, "/readyz", 503, "[-] etcd: gone\n[i] kek a: well\n[i] kek b: silent\nnot ready\n")
}

// Many that ask at the same time share one round, and so do those who ask soon after.
func TestReadyzIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		var clock clock
		release := make(chan struct{})
		h := Handler(Config{CacheFor: 3 * time.Second, Now: clock.now, Checks: []Check{{Name: "etcd", Ready: func(context.Context) error {
			calls.Add(1)
			<-release
			return nil
		}}}})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { mustGet(t, h, "/readyz", 200, "ok\n") })
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		mustGet(t, h, "/readyz", 200, "ok\n")
		if got := calls.Load(); got != 1 {
			t.Errorf("asked %d times, want 1", got)
		}
		clock.advance(3*time.Second - 1)
		mustGet(t, h, "/readyz", 200, "ok\n")
		if got := calls.Load(); got != 1 {
			t.Errorf("asked %d times while the results were fresh, want 1", got)
		}
		clock.advance(1)
		mustGet(t, h, "/readyz", 200, "ok\n")
		if got := calls.Load(); got != 2 {
			t.Errorf("asked %d times, want 2", got)
		}
	})
}

// Who waits for the process to get ready learns of it at once.
func TestReadyzKeepsNoFailure(t *testing.T) {
	var clock clock // stands still
	var failure atomic.Pointer[error]
	h := Handler(Config{CacheFor: time.Hour, Now: clock.now, Checks: []Check{{Name: "etcd", Ready: func(context.Context) error {
		if err := failure.Load(); err != nil {
			return *err
		}
		return nil
	}}}})
	err := errors.New("it was not probed yet")
	failure.Store(&err)
	mustGet(t, h, "/readyz", 503, "[-] etcd: it was not probed yet\nnot ready\n")
	failure.Store(nil)
	mustGet(t, h, "/readyz", 200, "ok\n")
	failure.Store(&err)
	mustGet(t, h, "/readyz", 200, "ok\n") // this one is kept
}

// A check that hangs costs one round its timeout, is not called again meanwhile, and does not hide the others.
func TestReadyzWithHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		var clock clock
		release := make(chan struct{})
		h := Handler(Config{CheckTimeout: 5 * time.Second, Now: clock.now, Checks: []Check{
			{Name: "hangs", Ready: func(context.Context) error { calls.Add(1); <-release; return nil }},
			check("etcd", nil),
			{Name: "obeys", Ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		}})
		start := time.Now() // the bubble's clock, which stands still while anything can go on
		status, body := get(t, h, "/readyz")
		if took := time.Since(start); status != 503 || took != 5*time.Second {
			t.Errorf("status %d after %s, want 503 after 5s", status, took)
		}
		if !strings.HasPrefix(body, "[-] hangs: no answer within 5s\n[+] etcd ok\n[-] obeys: ") {
			t.Errorf("got:\n%s", body)
		}
		clock.advance(DefaultCacheFor)
		_, body = get(t, h, "/readyz")
		if !strings.HasPrefix(body, "[-] hangs: the last check has not returned yet\n[+] etcd ok\n") || calls.Load() != 1 {
			t.Errorf("called %d times, got:\n%s", calls.Load(), body)
		}
		close(release)
		synctest.Wait()
		clock.advance(DefaultCacheFor)
		if _, body = get(t, h, "/readyz"); !strings.HasPrefix(body, "[+] hangs ok\n") {
			t.Errorf("after it returned:\n%s", body)
		}
	})
}

// A client that goes away ends neither the round nor the wait of others.
func TestReadyzClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var sawCancel atomic.Bool
		h := Handler(Config{Checks: []Check{{Name: "etcd", Ready: func(ctx context.Context) error {
			<-release
			sawCancel.Store(ctx.Err() != nil)
			return nil
		}}}})
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil))
		}()
		synctest.Wait()
		leave()
		<-left
		close(release)
		mustGet(t, h, "/readyz", 200, "ok\n")
		if sawCancel.Load() {
			t.Error("the check was cancelled with its first client")
		}
	})
}

func TestReadinessChangesAreLogged(t *testing.T) {
	var log bytes.Buffer
	var clock clock
	var failure atomic.Pointer[error]
	h := Handler(Config{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Now:    clock.now,
		Checks: []Check{{Name: "etcd", Ready: func(context.Context) error {
			if err := failure.Load(); err != nil {
				return *err
			}
			return nil
		}}},
	})
	ask := func(err error) {
		failure.Store(nil)
		if err != nil {
			failure.Store(&err)
		}
		clock.advance(DefaultCacheFor)
		get(t, h, "/readyz")
	}
	for _, err := range []error{nil, nil, errors.New("a"), errors.New("b"), nil} {
		ask(err)
	}
	var got []string
	for line := range strings.Lines(log.String()) {
		_, verdict, _ := strings.Cut(line, "verdict=")
		verdict, _, _ = strings.Cut(verdict, " detail")
		got = append(got, verdict)
	}
	if diff := cmp.Diff([]string{"ready", `"not ready: etcd"`, "ready"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
