package upstream

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// network is a net.Dialer for tests. It answers by address.
type network struct {
	mu    sync.Mutex       // guards what follows
	fails map[string]error // errHangs: until the context ends
	calls []string
}

var (
	errRefused = errors.New("connection refused")
	errHangs   = errors.New("no answer")
)

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	n.calls = append(n.calls, address)
	err := n.fails[address]
	n.mu.Unlock()
	if errors.Is(err, errHangs) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	context.AfterFunc(ctx, func() { _ = far.Close() }) // nobody talks on it
	return near, nil
}

// fakePool returns a pool of three endpoints (a:1, b:1, c:1) over a fake network, with the given healths.
func fakePool(t *testing.T, n *network, healths ...Health) *Pool {
	t.Helper()
	p := newPool(t, Config{Endpoints: []string{"http://a:1", "http://b:1", "http://c:1"}})
	p.dial = n.dial
	for i, h := range healths {
		p.endpoints[i].health = h
	}
	return p
}

// pairs returns the count of connections of each endpoint.
func pairs(p *Pool) []int {
	var list []int
	for _, s := range p.State() {
		list = append(list, s.Pairs)
	}
	return list
}

func TestDialSpreadsEvenly(t *testing.T) {
	p := fakePool(t, &network{}, Healthy, Healthy, Healthy)
	var conns []*Conn
	for range 7 {
		conns = append(conns, dial(t, p))
	}
	if diff := cmp.Diff([]int{3, 2, 2}, pairs(p)); diff != "" {
		t.Errorf("7 connections (-want +got):\n%s", diff)
	}
	for _, c := range conns {
		if c.Endpoint() == "http://b:1" {
			for range 2 { // the second does nothing
				_ = c.Close()
			}
		}
	}
	if diff := cmp.Diff([]int{3, 0, 2}, pairs(p)); diff != "" {
		t.Errorf("after closing (-want +got):\n%s", diff)
	}
	for range 2 {
		if c := dial(t, p); c.Endpoint() != "http://b:1" {
			t.Errorf("dialed %s, want the endpoint with the fewest connections", c.Endpoint())
		}
	}
}

// Equals take turns, or short connections would all go to the first endpoint.
func TestDialTakesTurns(t *testing.T) {
	p := fakePool(t, &network{}, Healthy, Healthy, Healthy)
	seen := make(map[string]int)
	for range 9 {
		c := dial(t, p)
		seen[c.Endpoint()]++
		_ = c.Close()
	}
	if diff := cmp.Diff(map[string]int{"http://a:1": 3, "http://b:1": 3, "http://c:1": 3}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDialPrefersByHealth(t *testing.T) {
	order := []Health{Healthy, Unknown, Suspect, Leaderless, Dead, Learner}
	for i, worse := range order[1:] {
		for _, good := range order[:i+1] {
			n := &network{}
			p := fakePool(t, n, worse, good, worse)
			p.endpoints[1].pairs = 100 // health counts more
			if c := dial(t, p); c.Endpoint() != "http://b:1" {
				t.Errorf("dialed %s, want the %s endpoint before a %s one", c.Endpoint(), good, worse)
			}
		}
	}
}

func TestDialGoesOnToTheNext(t *testing.T) {
	n := &network{fails: map[string]error{"a:1": errRefused}}
	p := fakePool(t, n, Healthy, Leaderless, Healthy)
	if c := dial(t, p); c.Endpoint() != "http://c:1" {
		t.Errorf("dialed %s, want http://c:1", c.Endpoint())
	}
	if diff := cmp.Diff([]string{"a:1", "c:1"}, n.calls); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Health{Suspect, Leaderless, Healthy}, healths(p)); diff != "" {
		t.Errorf("healths (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{0, 0, 1}, pairs(p)); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
	dial(t, p)
	if diff := cmp.Diff([]string{"a:1", "c:1", "c:1"}, n.calls); diff != "" {
		t.Errorf("attempts after the failure (-want +got):\n%s", diff)
	}
}

func TestDialFails(t *testing.T) {
	n := &network{fails: map[string]error{"a:1": errRefused, "b:1": errRefused, "c:1": errRefused}}
	p := fakePool(t, n, Healthy, Dead, Unknown)
	_, err := p.Dial(t.Context())
	if !errors.Is(err, errRefused) {
		t.Fatalf("got %v, want %v in it", err, errRefused)
	}
	for _, e := range p.endpoints {
		if strings.Count(err.Error(), e.name) != 1 {
			t.Errorf("the error does not name %s once: %v", e.name, err)
		}
	}
	if diff := cmp.Diff([]int{0, 0, 0}, pairs(p)); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
}

// A caller that goes away says nothing about the endpoints.
func TestDialCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fakePool(t, &network{fails: map[string]error{"a:1": errHangs}}, Healthy, Healthy, Healthy)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := p.Dial(ctx)
			ended <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		if diff := cmp.Diff([]Health{Healthy, Healthy, Healthy}, healths(p)); diff != "" {
			t.Errorf("healths (-want +got):\n%s", diff)
		}
		if _, err := p.Dial(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("with a dead context: got %v, want context.Canceled", err)
		}
	})
}

// An endpoint that swallows packets gets its share of the time, and leaves the rest to the others.
func TestDialSharesTime(t *testing.T) {
	tests := map[string]struct {
		fails map[string]error
		took  time.Duration
		fail  bool
	}{
		"one hangs":  {map[string]error{"a:1": errHangs}, 2 * time.Second, false},
		"two hang":   {map[string]error{"a:1": errHangs, "b:1": errHangs}, 4 * time.Second, false},
		"all hang":   {map[string]error{"a:1": errHangs, "b:1": errHangs, "c:1": errHangs}, 6 * time.Second, true},
		"one fails":  {map[string]error{"a:1": errRefused, "b:1": errHangs}, 3 * time.Second, false},
		"none hangs": {nil, 0, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := fakePool(t, &network{fails: test.fails}, Healthy, Healthy, Healthy)
				p.cfg.DialTimeout = 6 * time.Second
				start := time.Now() // the bubble's clock
				c, err := p.Dial(t.Context())
				if (err != nil) != test.fail {
					t.Errorf("got %v, want a failure: %t", err, test.fail)
				}
				if took := time.Since(start); took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
				if c != nil {
					_ = c.Close()
				}
			})
		})
	}
}
