package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/proxy/socket"
)

// userTimeout is how long bytes may stay unacknowledged, or a window closed, before the kernel gives a connection to etcd up (TCP_USER_TIMEOUT,
// RFC 5482; Linux only).
const userTimeout = 30 * time.Second

// newDialer returns the dialer of all connections to etcd. TCP_NODELAY is Go's default. A peer that vanishes is found after 15 s of silence and three
// lost probes, 30 s in all.
func newDialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         setUserTimeout,
	}
}

// Conn is a raw connection to one endpoint: TCP, a unix socket, or TLS with HTTP/2 negotiated over either. The embedded net.Conn is a *socket.Conn or
// a *tls.Conn. Nothing was written to it or read from it.
type Conn struct {
	net.Conn
	pool     *Pool
	endpoint *endpoint
	drain    <-chan struct{}
	release  sync.Once
}

// Endpoint returns the endpoint as configured.
func (c *Conn) Endpoint() string { return c.endpoint.name }

// Drain returns a channel that is closed when the connection should be given up in good order, since its endpoint became unfit (dead, leaderless or a
// learner) and a healthy one exists. It is never closed after Close, or while Run and Probe do not run.
func (c *Conn) Drain() <-chan struct{} { return c.drain }

// Suspect tells the pool that the connection failed in a way that throws doubt on its endpoint (no HTTP/2 settings came, a PING was not answered): new
// connections avoid the endpoint until it has been probed, which is done at once. The reason appears in State and in the log.
func (c *Conn) Suspect(reason string) { c.pool.suspect(c.endpoint, reason) }

// Close closes the connection and gives its place in the pool's count back. It may be called more than once.
func (c *Conn) Close() error {
	c.release.Do(func() { c.pool.release(c.endpoint) })
	return c.Conn.Close()
}

// Dial connects to the best endpoint and, if that fails, to the others in order of preference: healthy ones first, and among equals the one with the
// fewest connections. All of it takes no longer than Config.DialTimeout, of which each attempt gets an equal share of what is left, so that an endpoint that
// swallows packets does not use up the time of the next.
//
// A connection is no proof that etcd is alive behind it: wait for the peer's HTTP/2 settings before telling a client anything, and call Suspect
// when they do not come. The error joins what went wrong with each endpoint.
func (p *Pool) Dial(ctx context.Context) (*Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	var errs []error
	tried := make(map[*endpoint]bool)
	for len(tried) < len(p.endpoints) && bounded.Err() == nil {
		e, drain := p.pick(tried)
		conn, err := p.attempt(bounded, e, len(p.endpoints)-len(tried))
		if err == nil {
			return &Conn{Conn: conn, pool: p, endpoint: e, drain: drain}, nil
		}
		tried[e] = true
		p.release(e)
		errs = append(errs, fmt.Errorf("dialing etcd %s: %w", e.name, err))
		if ctx.Err() == nil {
			p.suspect(e, err.Error())
		}
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("dialing etcd: %w", context.Cause(bounded)))
	}
	return nil, errors.Join(errs...)
}

// DialTo connects to one endpoint, named as configured, within Config.DialTimeout, however healthy it is. The connection counts as one that Dial has made.
func (p *Pool) DialTo(ctx context.Context, endpoint string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	for _, e := range p.endpoints {
		if e.name != endpoint {
			continue
		}
		drain := p.take(e)
		conn, err := p.attempt(ctx, e, 1)
		if err != nil {
			p.release(e)
			return nil, fmt.Errorf("dialing etcd %s: %w", endpoint, err)
		}
		return &Conn{Conn: conn, pool: p, endpoint: e, drain: drain}, nil
	}
	return nil, fmt.Errorf("dialing etcd %s: it is no configured endpoint", endpoint)
}

// attempt connects to one endpoint within its share of the time that is left for n attempts.
func (p *Pool) attempt(ctx context.Context, e *endpoint, n int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(n))
		defer cancel()
	}
	start := p.cfg.Now()
	conn, err := p.connect(ctx, e)
	p.cfg.Observer.EndpointDialed(e.name, err, p.cfg.Now().Sub(start))
	return conn, err
}

// connect opens a connection to an endpoint, with TLS if the endpoint has it.
func (p *Pool) connect(ctx context.Context, e *endpoint) (net.Conn, error) {
	plain, err := p.dial(ctx, e.network, e.target)
	if err != nil {
		return nil, err
	}
	raw := socket.New(plain)
	if !e.secure {
		return raw, nil
	}
	conn, err := p.handshake(ctx, e.host, raw)
	if err != nil {
		return nil, err // not conn: a nil *tls.Conn is no nil net.Conn
	}
	return conn, nil
}

// pick chooses the endpoint to try next and counts a connection on it. Equals take turns.
func (p *Pool) pick(tried map[*endpoint]bool) (*endpoint, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *endpoint
	for i := range p.endpoints {
		e := p.endpoints[(p.turn+i)%len(p.endpoints)]
		if !tried[e] && (best == nil || better(e, best)) {
			best = e
		}
	}
	p.turn = (p.turn + 1) % len(p.endpoints)
	best.pairs++
	if best.health == Dead {
		best.nudge() // perhaps it is back
	}
	return best, best.drain
}

// take counts a connection on an endpoint.
func (p *Pool) take(e *endpoint) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.pairs++
	return e.drain
}

// better says whether a is to be preferred to b.
func better(a, b *endpoint) bool {
	if a.health != b.health {
		return a.health.rank() < b.health.rank()
	}
	return a.pairs < b.pairs
}

// release gives back what pick counted.
func (p *Pool) release(e *endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.pairs--
}
