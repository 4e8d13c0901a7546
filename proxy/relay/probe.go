package relay

import (
	"time"

	"golang.org/x/net/http2"
)

// bandwidthPing is in the PINGs by which gRPC for Go learns how much may be on its way
// at once (internal/transport/bdp_estimator.go). Whenever DATA comes it sends one,
// unless one is under way, and waits for the answer without a limit of time. Answered
// at once, each message would bring another one: a frame to read, a thread to wake and
// a write for its answer, on both legs. So the answer goes along with the first write
// that there is anyway after probeTime. A connection on which nothing is written keeps
// it, and its peer measures what comes next as well as ever.
var bandwidthPing = [8]byte{2, 4, 16, 16, 9, 14, 7, 7}

// probeTime is how long its answer waits at least. What the peer then takes for the
// round trip is about that of a call, as without a proxy; the windows that follow from it
// are what comes in this time, doubled.
const probeTime = 4 * time.Millisecond

// onProbe takes a bandwidth PING. mu is held.
func (l *leg) onProbe() {
	if !l.probed {
		l.probed, l.probedAt = true, time.Now()
		return
	}
	l.ping(http2.FlagPingAck, bandwidthPing) // of a peer that does not wait for the answer
}

// answerProbe puts the answer that is due behind what is about to be written. mu is
// held.
func (l *leg) answerProbe() {
	if l.probed && time.Since(l.probedAt) >= probeTime {
		l.probed = false
		l.ping(http2.FlagPingAck, bandwidthPing)
	}
}
