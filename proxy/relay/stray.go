package relay

import (
	"slices"

	"golang.org/x/net/http2"
)

// mostLeavers is how many streams leavers tells apart.
const mostLeavers = 64

// leavers are the client's streams that this end closed before the client had
// ended them: frames that the client sent before it knew are expected on them.
// The zero value is empty. Pair.mu guards it.
type leavers struct {
	ids []uint32 // the latest, oldest first
	// Of streams up to here nothing is known any more.
	before uint32
}

func (l *leavers) add(id uint32) {
	if len(l.ids) == mostLeavers {
		l.before = max(l.before, l.ids[0])
		l.ids = slices.Delete(l.ids, 0, 1)
	}
	l.ids = append(l.ids, id)
}

// has reports whether frames may still come on a stream that is over.
func (l *leavers) has(id uint32) bool { return id <= l.before || slices.Contains(l.ids, id) }

// forget takes note that the client has ended a stream, too.
func (l *leavers) forget(id uint32) {
	if i := slices.Index(l.ids, id); i >= 0 {
		l.ids = slices.Delete(l.ids, i, i+1)
	}
}

// excused reports whether a frame on a stream of the client's that is over is
// one that it may have sent before it knew. mu is held.
func (p *Pair) excused(id uint32, end bool) bool {
	known := p.left.has(id)
	if end {
		p.left.forget(id)
	}
	return known || p.refusedByGoAway(id)
}

// onStray takes a DATA frame on a stream of the client's that is over (RFC 9113,
// 5.1, "closed"). mu is held.
func (p *Pair) onStray(id uint32, end bool) {
	if !p.excused(id, end) {
		p.legs[Request].reset(id, http2.ErrCodeStreamClosed)
	}
}

// onStrayHeaders takes a header block on one: if it is not the rest of a request
// that was answered early, the client uses a number twice, or numbers that do not
// rise (RFC 9113, 5.1.1). mu is held.
func (p *Pair) onStrayHeaders(id uint32, end bool) error {
	if p.excused(id, end) {
		return nil
	}
	return connError{http2.ErrCodeStreamClosed, "HEADERS on a stream that is over"}
}
