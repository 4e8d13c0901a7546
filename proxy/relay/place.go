package relay

import (
	"time"

	"google.golang.org/grpc/codes"
)

// assemblyTime is how long a request message may keep its place in the budget,
// while others wait for one, before it is there whole.
const assemblyTime = 30 * time.Second

// holdLoose counts memory without a place in the budget, and refuses the stream
// when there is too much of it. mu is held.
func (p *Pair) holdLoose(s *stream, d Direction, n int64) bool {
	l := p.legs[d]
	if l.loose+n > maxLoose {
		p.refuse(s, tooMuch(d, "etcdseal: too many messages have come in part"))
		return false
	}
	l.loose += n
	return true
}

// tooMuch is the status of a stream that memory is refused to. A request can
// be made again; what is answered was carried out.
func tooMuch(d Direction, text string) *Status {
	if d == Request {
		return &Status{codes.Unavailable, text}
	}
	return &Status{codes.ResourceExhausted, text + "; the call itself was carried out"}
}

// findPlace asks for a message's place in the budget, and reports whether it is
// there now. mu is held.
func (p *Pair) findPlace(s *stream, d Direction) bool {
	h := &s.half[d]
	place, now := p.cfg.Budget.reserve(int64(h.asm.size), func() { p.resume(s, d) })
	h.asm.place, h.place = place, place
	p.legs[d].assembling++
	if d == Request && p.cfg.Budget != nil {
		h.slow = time.AfterFunc(assemblyTime, func() { p.checkPlace(s, place) })
	}
	return now
}

// checkPlace ends a request that keeps others waiting by sending its message
// too slowly.
func (p *Pair) checkPlace(s *stream, place *reservation) {
	p.mu.Lock()
	h := &s.half[Request]
	switch {
	case h.place != place || p.closed: // it is there whole, or gone
	case h.state == inputFree && p.cfg.Budget.contended():
		p.refuse(s, &Status{codes.Unavailable, "etcdseal: the message came too slowly, while others waited for its memory"})
	default:
		h.slow.Reset(assemblyTime)
	}
	p.flushLocked(Request)
}

// detach takes a message that is whole, or given up, off its leg's account. Its
// place is to be released. mu is held.
func (p *Pair) detach(s *stream, d Direction) *reservation {
	h, l := &s.half[d], p.legs[d]
	l.loose -= h.asm.loose
	h.asm.loose = 0
	place := h.place
	h.asm.place, h.place = nil, nil
	if place != nil {
		l.assembling--
	}
	if h.slow != nil {
		h.slow.Stop()
		h.slow = nil
	}
	return place
}
