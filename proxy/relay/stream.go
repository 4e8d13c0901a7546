package relay

import (
	"context"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stream is a client's stream and the upstream stream that goes with it.
// Pair.mu guards it, but for what its comments say.
type stream struct {
	id      uint32 // at the client; 2 less than upstream
	method  string
	started time.Time
	codec   Codec
	max     int // largest request message

	forwarded bool // opened upstream
	long      bool
	ended     bool // told to the Observer
	code      int  // gRPC code, -1 while unknown

	// closed[Request] says that nothing more is expected from or owed to the
	// client, since a RST_STREAM went one way or the other; closed[Response]
	// the same of the upstream.
	closed [2]bool

	half [2]half

	ctx    context.Context // made when something parks
	cancel context.CancelFunc
}

// half is one direction of a stream: what comes in on one leg and goes out on
// the other.
type half struct {
	// Coming in.
	recvWindow int64  // what the sender may still send
	credit     int64  // what has left on the other leg and was not given back yet
	endIn      bool   // END_STREAM has come
	swallow    bool   // what comes is dropped
	rewriting  bool   // messages are assembled for the codec
	encoding   string // grpc-encoding
	state      inputState
	raw        []byte // came while state was not inputFree
	asm        assembler
	entries    []*entry // messages in order, from the first that waits on
	advancing  bool
	trailers   []hpack.HeaderField
	begun      bool // of a response: the header block that is not informational has come
	resetIn    bool // RST_STREAM(NO_ERROR) has come behind the end

	// Going out.
	queue      []item
	sendWindow int64
	inReady    bool
	headersOut bool // HEADERS were queued or written
	endQueued  bool // nothing more is queued but a reset
	endOut     bool // END_STREAM was written
}

// itemKind tells what an item is.
type itemKind uint8

const (
	itemHeaders itemKind = iota
	itemData
	itemReset
)

// item is a piece of a stream's output: a header list, a run of data, or a
// reset.
type item struct {
	kind   itemKind
	end    bool // with END_STREAM
	info   bool // informational (1xx) headers
	repay  bool // bytes that leave go back to the sender's stream window
	prefix [messagePrefixSize]byte
	left   uint8 // bytes of prefix still to write
	code   http2.ErrCode
	data   []byte
	buf    *buffer // the memory of data, when it is the item's own
	fields []hpack.HeaderField
}

func (it *item) size() int { return int(it.left) + len(it.data) }

// messageItem frames msg as gRPC does, uncompressed.
func messageItem(msg []byte, buf *buffer) item {
	n := len(msg)
	return item{
		kind:   itemData,
		prefix: [messagePrefixSize]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)},
		left:   messagePrefixSize,
		data:   msg,
		buf:    buf,
	}
}

// own makes the item independent of memory that its maker goes on using.
func (it *item) own() {
	switch {
	case it.kind == itemHeaders:
		it.fields = append([]hpack.HeaderField(nil), it.fields...)
	case it.kind == itemData && it.buf == nil && len(it.data) > 0:
		it.buf = newBuffer(len(it.data))
		it.buf.b = append(it.buf.b, it.data...)
		it.data = it.buf.b
	}
}

// join adds the data of a pass-through item to one that waits, when there is
// room: many small frames shall not cost many items.
func (it *item) join(next *item) bool {
	if it.kind != itemData || next.kind != itemData || it.end || !it.repay || !next.repay || it.buf == nil {
		return false
	}
	if cap(it.buf.b)-len(it.buf.b) < len(next.data) {
		return false
	}
	it.buf.b = append(it.buf.b, next.data...)
	it.data = it.buf.b[len(it.buf.b)-len(it.data)-len(next.data):]
	it.end = next.end
	return true
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
