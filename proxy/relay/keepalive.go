package relay

import (
	"errors"
	"time"
)

// ErrSilent ends a pair one of whose peers does not answer.
var ErrSilent = errors.New("relay: no answer to a keepalive ping")

// upstreamPingTimeout is how long the upstream may take to answer a PING.
const upstreamPingTimeout = 10 * time.Second

var keepalivePing = [8]byte{'k', 'e', 'e', 'p'}

// keepalive finds peers that are gone without a word. PINGs of a peer are
// answered on its own leg, never forwarded: etcd closes connections that ping
// more often than it allows. Pair.mu guards it.
type keepalive struct {
	timers [2]*time.Timer
	pinged [2]bool
}

func (k *keepalive) stop() {
	for _, t := range k.timers {
		if t != nil {
			t.Stop()
		}
	}
}

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
	silent := time.Since(time.Unix(0, l.rd.lastRead.Load()))
	next, dead := interval, false
	switch {
	case d == Response && p.opened == 0, !l.rd.waiting.Load():
		// etcd allows no PING without streams; and a reader that is held up by
		// the other leg cannot have seen an answer.
		k.pinged[d] = false
	case silent < interval:
		k.pinged[d] = false
		next = interval - silent
	case !k.pinged[d]:
		k.pinged[d] = true
		l.ping(0, keepalivePing)
		next = timeout
	default:
		dead = true
	}
	k.timers[d].Reset(next)
	p.mu.Unlock()
	if dead {
		p.fail(ErrSilent)
		return
	}
	p.flush()
}
