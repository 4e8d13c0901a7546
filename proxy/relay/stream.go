package relay

import (
	"context"
	"time"

	"golang.org/x/net/http2/hpack"
)

// stream is a client's stream and the upstream stream that goes with it.
// Pair.mu guards it, but for what its comments say. Its fields are in an order that
// leaves few gaps: each of ten thousand idle watches has one (TestIdleStreamIsSmall).
type stream struct {
	id        uint32 // at the client; 2 less than upstream
	forwarded bool   // opened upstream
	orphan    bool   // the upstream has not taken it, but its codec may still answer it
	long      bool
	ended     bool // told to the Observer

	method  string
	started time.Time
	codec   Codec
	max     int    // largest request message
	length  int64  // of the request's body, as content-length says
	taken   int64  // of it has come
	later   []item // when the request has come whole

	code int // gRPC code, -1 while unknown

	// closed[Request] says that nothing more is expected from or owed to the
	// client, since a RST_STREAM went one way or the other; closed[Response]
	// the same of the upstream.
	closed [2]bool

	half [2]half

	served *served // answered here by a handler

	ctx    context.Context // made when something parks
	cancel context.CancelFunc
}

// half is one direction of a stream: what comes in on one leg and goes out on
// the other.
type half struct {
	// Coming in.
	recvWindow int64 // what the sender may still send
	credit     int64 // what may be given back to it and was not yet
	endIn      bool  // END_STREAM has come
	cut        bool  // RST_STREAM(NO_ERROR) has come in its place
	swallow    bool  // what comes is dropped
	rewriting  bool  // messages are assembled for the codec
	advancing  bool
	begun      bool // of a response: the header block that is not informational has come
	resetIn    bool // RST_STREAM(NO_ERROR) has come, and goes out behind the end
	state      inputState
	encoding   string // grpc-encoding
	raw        []byte // came while state was not inputFree
	asm        assembler
	place      *reservation // asm's, guarded by mu
	slow       *time.Timer  // ends a message that keeps its place too long
	entries    []*entry     // messages in order, from the first that waits on
	parked     int64        // bytes of them
	trailers   []hpack.HeaderField

	// Going out.
	queue      []item
	queued     int64 // bytes of memory in it
	sendWindow int64
	inReady    bool // in the round of its leg, or in line for its window
	headersOut bool // HEADERS were queued or written
	endQueued  bool // nothing more is queued but a reset
	endOut     bool // END_STREAM was written
}

// waitContext returns the context of the stream's parked messages.
func (s *stream) waitContext(parent context.Context) context.Context {
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancel(parent)
	}
	return s.ctx
}

// upstreamID is the stream's number upstream: stream 1 there is the proxy's.
func (s *stream) upstreamID() uint32 { return s.id + 2 }

// idOn is the stream's number on the leg that direction d comes in on.
func (s *stream) idOn(d Direction) uint32 {
	if d == Response {
		return s.upstreamID()
	}
	return s.id
}

// gone reports whether what still comes in direction d is of no use.
func (s *stream) gone(d Direction) bool { return s.half[d].swallow || s.closed[1-d] }

// limit is the largest message that a stream may carry in a direction.
func (s *stream) limit(d Direction) int {
	if d == Request && s.max > 0 {
		return s.max
	}
	return maxWindow
}

// ring is a queue of streams that take turns.
type ring struct {
	s    []*stream
	head int
}

func (r *ring) len() int { return len(r.s) - r.head }

func (r *ring) push(s *stream) {
	if r.head > 64 && r.head > len(r.s)/2 {
		n := copy(r.s, r.s[r.head:])
		clear(r.s[n:])
		r.s, r.head = r.s[:n], 0
	}
	r.s = append(r.s, s)
}

func (r *ring) pop() *stream {
	s := r.s[r.head]
	r.s[r.head] = nil
	r.head++
	if r.head == len(r.s) {
		r.s, r.head = r.s[:0], 0
		if cap(r.s) > 256 {
			r.s = nil
		}
	}
	return s
}

// tidy takes streams with nothing to write in direction d out of the ring when
// it holds far more than the n streams that are open: those that ended while
// they were in it.
func (r *ring) tidy(d Direction, n int) {
	if r.len() <= 64+2*n {
		return
	}
	kept := r.s[:0]
	for _, s := range r.s[r.head:] {
		if len(s.half[d].queue) > 0 {
			kept = append(kept, s)
		} else {
			s.half[d].inReady = false
		}
	}
	clear(r.s[len(kept):])
	r.s, r.head = kept, 0
}
