package relay

import (
	"net"
	"sync"

	"github.com/etcdseal/etcdseal/proxy/socket"
)

const (
	// outSoft is how much is copied for a socket at once; with more, streams keep
	// what they have in their queues.
	outSoft = 64 << 10
	// outLent is how much may be lent to it besides: enough for a page of 500
	// secrets of 1 KiB in one write.
	outLent = 640 << 10
	// outHard is how much may be copied for a socket in all: control frames
	// past it mean that the peer asks without reading the answers.
	outHard = 1 << 20
	// leastLent is the least that is worth a place of its own in a write.
	leastLent = 4 << 10
)

// outgoing is what waits for a leg's socket: frames, some of whose payloads are
// not copied but lent by the items that they belong to.
type outgoing struct {
	b     []byte // everything but the payloads that are lent
	loans []loan
	lent  int // bytes of them

	parts [][]byte // of the write that is under way
}

// loan is a payload that comes after the first at bytes of outgoing.b.
type loan struct {
	at   int
	data []byte
	buf  *buffer
}

var outgoings = sync.Pool{New: func() any { return &outgoing{b: make([]byte, 0, 4<<10)} }}

func (o *outgoing) size() int { return len(o.b) + o.lent }

// full reports whether streams are to keep what they have.
func (o *outgoing) full() bool { return len(o.b) >= outSoft || o.lent >= outLent }

// lend adds a payload behind what there is.
func (o *outgoing) lend(data []byte, buf *buffer) {
	buf.loans++
	o.loans = append(o.loans, loan{len(o.b), data, buf})
	o.lent += len(data)
}

// writeTo writes everything.
func (o *outgoing) writeTo(conn net.Conn) error {
	if len(o.loans) == 0 {
		_, err := conn.Write(o.b)
		return err
	}
	at := 0
	o.parts = o.parts[:0]
	for _, l := range o.loans {
		if l.at > at {
			o.parts = append(o.parts, o.b[at:l.at])
		}
		o.parts = append(o.parts, l.data)
		at = l.at
	}
	if at < len(o.b) {
		o.parts = append(o.parts, o.b[at:])
	}
	return conn.(*socket.Conn).WriteParts(o.parts) // nothing else is lent to
}

// release gives what was lent back, and o to whoever needs one next. Pair.mu is
// held.
func (o *outgoing) release() {
	for i := range o.loans {
		o.loans[i].buf.giveBack()
	}
	clear(o.loans)
	clear(o.parts)
	o.b, o.loans, o.lent, o.parts = o.b[:0], o.loans[:0], 0, o.parts[:0]
	if cap(o.b) <= 2*outSoft {
		outgoings.Put(o)
	}
}

// gathers reports whether several pieces of memory can be written to a
// connection at once. For one with TLS each would become a record.
func gathers(conn net.Conn) bool {
	_, ok := conn.(*socket.Conn)
	return ok
}
