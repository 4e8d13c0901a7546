package relay

import (
	"time"

	"golang.org/x/net/http2"
)

// bandwidthPing is in the PINGs by which grpc-go learns how much may be on its way at
// once (internal/transport/bdp_estimator.go). Until its windows have reached 16 MiB it
// sends one whenever DATA comes and none is under way. Answered at once, each message
// would bring another one: a frame to read, a thread to wake and a write for its
// answer, on both legs. So the answer goes along with the first write that there is
// anyway after probeTime, or alone after probeLimit.
var bandwidthPing = [8]byte{2, 4, 16, 16, 9, 14, 7, 7}

const (
	// probeTime is how long its answer waits at least. The peer takes it for the round
	// trip, as long as a call's is without a proxy, and lets twice as much be on its way
	// as comes meanwhile.
	probeTime = 4 * time.Millisecond
	// probeLimit is how long it waits at most. Nobody waits for it, but a pause that was
	// taken for a round trip would have the peer's windows grow later.
	probeLimit = 100 * time.Millisecond
)

// probe is a leg's bandwidth PING. Pair.mu guards it.
type probe struct {
	waits bool // for its answer
	since time.Time
	late  *time.Timer // for an answer that nothing takes along; made for the first one
	armed bool        // late is running, or about to find out what it is for
}

// onProbe takes a bandwidth PING that came in on leg d. mu is held.
func (p *Pair) onProbe(d Direction) {
	l := p.legs[d]
	if l.probe.waits { // the peer does not wait for the answer
		l.ping(http2.FlagPingAck, bandwidthPing)
		return
	}
	l.probe.waits, l.probe.since = true, time.Now()
	if !l.probe.armed {
		p.armProbe(d, probeLimit)
	}
}

// armProbe has the answer sent alone after a time. One timer serves all PINGs that come
// until then, so that a busy connection has no more than ten a second. mu is held.
func (p *Pair) armProbe(d Direction, after time.Duration) {
	b := &p.legs[d].probe
	b.armed = true
	if b.late == nil {
		b.late = time.AfterFunc(after, func() { p.probeLate(d) })
		return
	}
	b.late.Reset(after)
}

// probeLate sends the answer that nothing has taken along.
func (p *Pair) probeLate(d Direction) {
	p.mu.Lock()
	l := p.legs[d]
	l.probe.armed = false
	if !l.probe.waits || p.closed {
		p.mu.Unlock()
		return
	}
	if left := probeLimit - time.Since(l.probe.since); left > 0 {
		p.armProbe(d, left)
		p.mu.Unlock()
		return
	}
	l.probe.waits = false
	l.ping(http2.FlagPingAck, bandwidthPing)
	p.flushLocked(d)
}

// answerProbe puts the answer behind what is about to be written, if it has waited
// long enough. mu is held.
func (l *leg) answerProbe() {
	if l.probe.waits && time.Since(l.probe.since) >= probeTime {
		l.probe.waits = false
		l.ping(http2.FlagPingAck, bandwidthPing)
	}
}

// stop stops the timer, when the pair has ended.
func (b *probe) stop() {
	if b.late != nil {
		b.late.Stop()
	}
}
