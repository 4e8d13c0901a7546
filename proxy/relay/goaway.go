package relay

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"
)

// drainPing marks the PING that follows the first GOAWAY of a drain: when it
// is answered, the client has seen that GOAWAY and opens no more streams.
var drainPing = [8]byte{'e', 't', 'c', 'd', 's', 'e', 'a', 'l'}

// drainPingTime is how long the answer to it is waited for.
const drainPingTime = time.Second

// onGoAway takes a peer's GOAWAY. The client's says only that it accepts no
// more pushed streams. The upstream's says which streams it will not process.
func (p *Pair) onGoAway(d Direction, f frame) error {
	if f.id != 0 {
		return protocolError("GOAWAY on a stream")
	}
	if len(f.payload) < 8 {
		return connError{http2.ErrCodeFrameSize, "GOAWAY of a wrong size"}
	}
	if d == Request {
		return nil
	}
	last := binary.BigEndian.Uint32(f.payload) & maxStreamID
	code := http2.ErrCode(binary.BigEndian.Uint32(f.payload[4:]))
	if last < maxStreamID {
		last = max(last, 2) - 2
	}
	for id, s := range p.streams {
		if s.forwarded && id > last && !s.half[Response].begun && !s.half[Response].swallow {
			p.notTaken(s)
		}
	}
	p.goAway(max(last, p.answeredID), code)
	return nil
}

// notTaken ends a stream that the upstream has not processed and never will: the
// client makes the call again elsewhere. If a request of it waits for its codec, which
// may be having it carried out by other means, it is not to be made again before that
// is decided. mu is held.
func (p *Pair) notTaken(s *stream) {
	s.closed[Response] = true
	if s.half[Request].waits() {
		s.orphan = true
		p.discard(s, Request)
		p.answeredID = max(p.answeredID, s.id)
		return
	}
	p.resetBoth(s, http2.ErrCodeRefusedStream)
}

// goAway sends GOAWAY to the client. The last stream only ever falls: a client
// sends those above it again elsewhere.
func (p *Pair) goAway(last uint32, code http2.ErrCode) {
	if p.goAwaySent {
		last = min(last, p.goAwayLast)
	}
	p.goAwaySent, p.goAwayLast = true, last
	l := p.legs[Request]
	l.control(appendGoAway(l.room(), last, code, ""))
}

// refusedByGoAway reports whether the client was told that a stream is not
// taken. mu is held.
func (p *Pair) refusedByGoAway(id uint32) bool { return p.goAwaySent && id > p.goAwayLast }
