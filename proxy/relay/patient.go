package relay

import (
	"time"

	"golang.org/x/net/http2"
)

const (
	// patience is how long the answer to a PING may wait for something else to be
	// written with it. gRPC's clients and servers have a PING under way whenever data
	// comes, to learn how much window is worth its memory: an answer of its own each
	// time would be every second write.
	patience = 5 * time.Millisecond
	// maxPatient is how many bytes of answers may wait.
	maxPatient = 1 << 10
)

// acknowledge answers a PING of leg d's peer. mu is held.
func (p *Pair) acknowledge(d Direction, data [8]byte) {
	l := p.legs[d]
	before := l.pending()
	l.ping(http2.FlagPingAck, data)
	if before > l.patient || l.broken { // it goes with what waits already
		return
	}
	waits := l.patient > 0
	if l.patient = l.pending(); l.patient > maxPatient {
		l.patient = 0
		return
	}
	switch {
	case waits:
	case l.patience == nil:
		l.patience = time.AfterFunc(patience, func() { p.hurry(d) })
	default:
		l.patience.Reset(patience)
	}
}

// hurry writes what has waited.
func (p *Pair) hurry(d Direction) {
	p.mu.Lock()
	p.legs[d].patient = 0
	p.flushLocked(d)
}
