package relay

import (
	"errors"
	"time"
)

// ErrSilent ends a pair whose upstream does not answer.
var ErrSilent = errors.New("relay: no answer to a keepalive ping from the upstream")

// errClientSilent ends a pair whose client does not answer.
var errClientSilent = errors.New("relay: no answer to a keepalive ping from the client")

// upstreamPingTimeout is how long the upstream may take to answer a PING.
const upstreamPingTimeout = 10 * time.Second

var keepalivePing = [8]byte{'k', 'e', 'e', 'p'}

// keepalive finds peers that are gone without a word. A peer's own PINGs that ask
// whether the connection lives are answered on its leg, never forwarded: etcd closes
// connections that ping more often than it allows. Pair.mu guards it.
type keepalive struct {
	timers [2]*time.Timer
	pinged [2]bool  // a PING was sent, and nothing has come since
	last   [2]int64 // when the last bytes had come at that time
	doubt  [2]bool  // time is up; one more look
}

// lastLook is how long a reader that was held up until now may take to see what
// has come, before its peer is given up.
const lastLook = 100 * time.Millisecond

func (p *Pair) startKeepalive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keepalive.timers[Response] = time.AfterFunc(p.cfg.UpstreamPing, func() {
		p.tick(Response, p.cfg.UpstreamPing, upstreamPingTimeout)
	})
	p.keepalive.timers[Request] = time.AfterFunc(p.cfg.ClientPing, func() {
		p.tick(Request, p.cfg.ClientPing, p.cfg.ClientPingTimeout)
	})
}

// tick looks at a leg that may have been silent for an interval.
func (p *Pair) tick(d Direction, interval, timeout time.Duration) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	k, l := &p.keepalive, p.legs[d]
	last := l.rd.lastRead.Load()
	silent := time.Since(l.rd.made) - time.Duration(last)
	// etcd allows no PING without streams, and a reader that is held up by the
	// other leg cannot have seen an answer.
	held := d == Response && p.opened == 0 || !l.rd.waiting.Load()
	if held || last != k.last[d] {
		k.pinged[d], k.doubt[d] = false, false
	}
	next, dead := interval, false
	switch {
	case held:
	case k.doubt[d]:
		dead = true
	case k.pinged[d]:
		k.doubt[d] = true
		next = lastLook
	case silent < interval:
		next = interval - silent
	default:
		k.pinged[d], k.last[d] = true, last
		l.ping(0, keepalivePing)
		next = timeout
	}
	k.timers[d].Reset(next)
	p.mu.Unlock()
	if dead {
		p.fail([2]error{Request: errClientSilent, Response: ErrSilent}[d])
		return
	}
	p.flush(d)
}
