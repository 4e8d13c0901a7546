package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// get asks a handler and returns status and body.
func get(t *testing.T, h http.Handler, target string) (int, string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return recorder.Code, recorder.Body.String()
}

// mustGet asks a handler and compares.
func mustGet(t *testing.T, h http.Handler, target string, status int, body string) {
	t.Helper()
	gotStatus, gotBody := get(t, h, target)
	if gotStatus != status {
		t.Errorf("%s: status %d, want %d", target, gotStatus, status)
	}
	if diff := cmp.Diff(body, gotBody); diff != "" {
		t.Errorf("%s (-want +got):\n%s", target, diff)
	}
}

// clock is a clock that the test moves.
type clock struct {
	nanos atomic.Int64
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// check returns a Check with a fixed result.
func check(name string, err error) Check {
	return Check{Name: name, Ready: func(context.Context) error { return err }}
}

func TestLivez(t *testing.T) {
	h := Handler(Config{Checks: []Check{check("etcd", errors.New("down"))}})
	mustGet(t, h, "/livez", 200, "ok\n")
}

func TestOtherRequests(t *testing.T) {
	h := Handler(Config{})
	for target, want := range map[string]int{"/": 404, "/metrics": 404, "/livez/x": 404, "/debug/pprof/": 404} {
		if got, _ := get(t, h, target); got != want {
			t.Errorf("%s: status %d, want %d", target, got, want)
		}
	}
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/readyz", nil))
	if recorder.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d, want 405", recorder.Code)
	}
}

func TestMetrics(t *testing.T) {
	registry := NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "etcdseal_test_total", Help: "A test."})
	registry.MustRegister(counter)
	counter.Add(3)
	status, body := get(t, Handler(Config{Metrics: registry}), "/metrics")
	if status != 200 {
		t.Fatalf("status %d:\n%s", status, body)
	}
	for _, want := range []string{"\netcdseal_test_total 3\n", "\ngo_goroutines ", "\nprocess_open_fds "} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in the answer", want)
		}
	}
}

// serving starts a server and returns it with what ends it.
func serving(t *testing.T, cfg Config) (s *Server, stop func() error) {
	t.Helper()
	cfg.Address = "127.0.0.1:0"
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return s, stop
}

// request asks a real server over a connection of its own.
func request(t *testing.T, s *Server, path string) (int, string, error) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.Addr().String() + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func TestServer(t *testing.T) {
	s, stop := serving(t, Config{})
	if status, body, err := request(t, s, "/livez"); err != nil || status != 200 || body != "ok\n" {
		t.Errorf("got %d %q %v", status, body, err)
	}
	if _, err := Open(t.Context(), Config{Address: s.Addr().String()}); err == nil {
		t.Error("opened an address that is taken")
	}
	if err := stop(); err != nil {
		t.Errorf("running: %v", err)
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the address still answers after Run")
	}
}

// A request in flight is answered when the server stops.
func TestServerFinishesRequests(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	s, stop := serving(t, Config{ShutdownTimeout: time.Hour, Checks: []Check{{Name: "etcd", Ready: func(context.Context) error {
		close(arrived)
		<-release
		return nil
	}}}})
	answered := make(chan string, 1)
	go func() {
		_, body, err := request(t, s, "/readyz")
		if err != nil {
			t.Errorf("asking: %v", err)
		}
		answered <- body
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// The listener is closed before requests are waited for.
	for {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(release)
	if body := <-answered; body != "ok\n" {
		t.Errorf("got %q", body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("running: %v", err)
	}
}

// What does not end in time is cut off.
func TestServerCutsOff(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	s, stop := serving(t, Config{ShutdownTimeout: time.Nanosecond, Checks: []Check{{Name: "etcd", Ready: func(context.Context) error {
		close(arrived)
		<-release
		return nil
	}}}})
	answered := make(chan error, 1)
	go func() {
		_, _, err := request(t, s, "/readyz")
		answered <- err
	}()
	<-arrived
	if err := stop(); err != nil {
		t.Errorf("running: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the request was answered")
	}
}

// A client that sends its request a byte at a time, or never reads the answer, is not waited for.
func TestServerHasTimeouts(t *testing.T) {
	s, err := Open(t.Context(), Config{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	if s.http.ReadHeaderTimeout <= 0 || s.http.ReadTimeout <= 0 || s.http.WriteTimeout <= 0 || s.http.IdleTimeout <= 0 || s.http.MaxHeaderBytes <= 0 {
		t.Errorf("a limit is missing: %+v", &s.http)
	}
	if s.http.WriteTimeout <= DefaultCheckTimeout {
		t.Errorf("the write timeout %s ends before the checks' %s", s.http.WriteTimeout, DefaultCheckTimeout)
	}
}
