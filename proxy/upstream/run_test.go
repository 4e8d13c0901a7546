package upstream

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// running starts Run and returns what ends it and waits.
func running(t *testing.T, p *Pool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("running: %v", err)
		}
	})
}

// A healthy endpoint is probed at the configured interval; a broken connection has it probed at once, and then every second while it is gone.
func TestRun(t *testing.T) {
	m := cluster(t, 1, nil)[0]
	clock, observer := newClock(), newObserver()
	p := newPool(t, Config{Endpoints: []string{m.endpoint}, ProbeInterval: time.Minute, After: clock.after, Observer: observer})
	until(t, p, Healthy) // a new member may have no leader for a moment
	observer.forget()
	stop := running(t, p)
	defer stop()

	mustProbe(t, observer, Healthy)
	mustWait(t, clock, time.Minute).fire <- time.Time{}
	mustProbe(t, observer, Healthy)
	mustWait(t, clock, time.Minute)

	m.stop() // no timer fires: the loss of the connection is enough
	mustProbe(t, observer, Dead)
	mustWait(t, clock, recheck).fire <- time.Time{}
	mustProbe(t, observer, Dead)
	mustWait(t, clock, recheck)
	if got := healths(p)[0]; got != Dead {
		t.Errorf("got %s, want dead", got)
	}
	stop()
}

func mustProbe(t *testing.T, o *observer, want Health) {
	t.Helper()
	if got := <-o.probed; got != want {
		t.Fatalf("probed: got %s, want %s", got, want)
	}
}

func mustWait(t *testing.T, c *clock, want time.Duration) timer {
	t.Helper()
	got := <-c.timers
	if got.d != want {
		t.Fatalf("waits for %s, want %s", got.d, want)
	}
	return got
}

// A suspicion is cleared up by a probe at once.
func TestRunClearsSuspicion(t *testing.T) {
	m := cluster(t, 1, nil)[0]
	clock, observer := newClock(), newObserver()
	p := newPool(t, Config{Endpoints: []string{m.endpoint}, After: clock.after, Observer: observer})
	until(t, p, Healthy)
	observer.forget()
	defer running(t, p)()
	mustProbe(t, observer, Healthy)
	mustWait(t, clock, DefaultProbeInterval)
	dial(t, p).Suspect("no settings")
	mustProbe(t, observer, Healthy)
	mustWait(t, clock, DefaultProbeInterval)
	if got := healths(p)[0]; got != Healthy {
		t.Errorf("got %s, want healthy", got)
	}
}

// tap records what is written to a connection.
type tap struct {
	net.Conn
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (c *tap) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.buf.Write(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// frames counts what was written, by type; PING answers are not counted.
func (c *tap) frames(t *testing.T) map[http2.FrameType]int {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := bytes.NewReader(bytes.Clone(c.buf.Bytes()))
	if _, err := io.CopyN(io.Discard, r, int64(len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes written", c.buf.Len())
	counts := make(map[http2.FrameType]int)
	framer := http2.NewFramer(nil, r)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return counts
		}
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
			continue
		}
		counts[frame.Header().Type]++
	}
}

// Probes share one connection and send no PING, of which etcd counts those that come too often.
func TestProbesSendNoPing(t *testing.T) {
	m := cluster(t, 1, nil)[0]
	p := newPool(t, Config{Endpoints: []string{m.endpoint}})
	plain := p.dial
	taps := make(chan *tap, 100)
	p.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := plain(ctx, network, address)
		if err != nil {
			return nil, err
		}
		tapped := &tap{Conn: conn}
		taps <- tapped
		return tapped, nil
	}
	const probes = 50
	for range probes {
		p.Probe(t.Context())
	}
	if len(taps) != 1 {
		t.Fatalf("%d connections, want 1", len(taps))
	}
	tapped := <-taps
	counts := tapped.frames(t)
	if counts[http2.FrameHeaders] != probes {
		t.Errorf("%d calls, want %d: %v", counts[http2.FrameHeaders], probes, counts)
	}
	if counts[http2.FramePing] != 0 {
		t.Errorf("%d PINGs: %v", counts[http2.FramePing], counts)
	}
}
