package relay

import (
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// clientWindow is how many bytes a client may send on a stream ahead of
	// what the upstream has taken; serverWindow is the same the other way.
	clientWindow = 64 << 10
	serverWindow = 256 << 10
	// connWindow is the same for a whole connection; it is given back on
	// receipt, so it only has to cover what is on its way.
	connWindow = 8 << 20
	// creditStep is how much of a connection's window gathers before it is given
	// back, each time by a write of its own; of a stream's it is a quarter.
	creditStep = connWindow / 8
	// maxLoose bounds what a leg may hold of messages that have no place in the
	// budget: small ones that have come in part, and what has come behind a
	// message that waits. A stream that would need more is refused.
	maxLoose = 128 << 20
	// maxListed bounds the header lists and resets, which no window bounds,
	// that may be queued towards a peer.
	maxListed = 32 << 20
	// tableSize is the size of HPACK's table for what comes in, and the largest
	// for what goes out: the one that HTTP/2 begins with.
	tableSize = 4096
	// maxHeaderList is the largest header list accepted, counted as HPACK does.
	maxHeaderList = 1 << 20
	// maxContinuations is how many CONTINUATION frames a header block may take.
	maxContinuations = 128
)

// windows are the stream windows by direction.
var windows = [2]int64{Request: clientWindow, Response: serverWindow}

// leg is one of a pair's two connections.
type leg struct {
	conn net.Conn

	// The goroutine that reads owns these.
	rd            *reader
	dec           *decoder
	block         []byte // a header block that CONTINUATION goes on with
	blockFrame    frame
	continuations int
	inBlock       bool
	greeted       bool // the first frame has come

	// Pair.mu guards the rest.
	out        *outgoing // frames that wait for the socket; nil when there are none
	gathers    bool      // out may lend
	relayed    int       // bytes copied into out that came from the other peer
	writing    bool      // a goroutine is writing, and will go on while out has something
	carryOn    func()    // writes on a goroutine of its own; made once, not by each kick
	enc        *encoder
	sendWindow int64 // what the peer lets us send on the connection
	initial    int64 // its SETTINGS_INITIAL_WINDOW_SIZE
	maxFrame   int   // its SETTINGS_MAX_FRAME_SIZE
	recvWindow int64 // what it may still send
	credit     int64 // what it sent and was not given back yet
	queued     int64 // bytes of memory in the queues of streams towards it
	listed     int64 // the part of that which no window bounds
	loose      int64 // bytes that came in and have no place in the budget
	assembling int   // messages coming in that have one
	ready      ring  // streams with output that may go on
	starved    ring  // streams that wait for the connection's window
	held       bool  // streams were parked since too much is queued towards it
	flooded    bool
	probe      probe
	broken     bool      // nothing more is written
	taken      sync.Cond // what waited was taken for writing, or never will be
}

func newLeg(conn net.Conn, rd *reader, mu *sync.Mutex) *leg {
	l := &leg{
		conn:       conn,
		gathers:    gathers(conn),
		rd:         rd,
		sendWindow: defaultWindow,
		initial:    defaultWindow,
		maxFrame:   maxFramePayload,
		recvWindow: connWindow,
	}
	l.taken.L = mu
	l.enc, l.dec = newEncoder(), newDecoder()
	return l
}

// decode decodes a whole header block into l.dec.
func (l *leg) decode(block []byte) error {
	if err := l.dec.decode(block); err != nil {
		return connError{http2.ErrCodeCompression, "a header block that HPACK cannot decode"}
	}
	return nil
}

// room returns the memory to append frames to; put stores it again, unless
// nothing is written any more.
func (l *leg) room() []byte {
	if l.out == nil {
		l.out = outgoings.Get().(*outgoing)
	}
	return l.out.b
}

func (l *leg) put(b []byte) {
	if l.broken {
		b = b[:0]
	}
	l.out.b = b
}

// control stores frames that answer or steer the peer.
func (l *leg) control(b []byte) {
	l.put(b)
	l.flooded = l.flooded || len(b) > outHard
}

func (l *leg) pending() int {
	if l.out == nil {
		return 0
	}
	return l.out.size()
}

// full reports whether streams are to keep what they have.
func (l *leg) full() bool { return l.out != nil && l.out.full() }

func (l *leg) reset(id uint32, code http2.ErrCode) { l.control(appendReset(l.room(), id, code)) }

func (l *leg) ping(flags http2.Flags, data [8]byte) { l.control(appendPing(l.room(), flags, data)) }

// writeHeaders encodes fields now, in the order of writing, since the peer's
// table changes with each block.
func (l *leg) writeHeaders(id uint32, fields []hpack.HeaderField, end bool) {
	block := l.enc.encode(fields)
	typ, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	b := l.room()
	for {
		n := min(len(block), l.maxFrame)
		if n == len(block) {
			flags |= http2.FlagHeadersEndHeaders
		}
		b = appendFrameHeader(b, n, typ, flags, id)
		b = append(b, block[:n]...)
		block = block[n:]
		if len(block) == 0 {
			break
		}
		typ, flags = http2.FrameContinuation, 0
	}
	l.put(b)
}

// received counts n bytes of DATA frames against the connection's window.
func (l *leg) received(n int) error {
	l.recvWindow -= int64(n)
	if l.recvWindow < 0 {
		return connError{http2.ErrCodeFlowControl, "more than the connection's window"}
	}
	l.credit += int64(n)
	return nil
}

// repay gives the connection's window back, unless it is withheld.
func (l *leg) repay(withhold bool) {
	if l.credit < creditStep || withhold {
		return
	}
	l.control(appendWindowUpdate(l.room(), 0, l.credit))
	l.recvWindow += l.credit
	l.credit = 0
}

// apply takes one of the peer's settings. It returns by how much streams' send
// windows change.
func (l *leg) apply(s http2.Setting) (delta int64, err error) {
	if err := s.Valid(); err != nil {
		code := http2.ErrCodeProtocol
		if s.ID == http2.SettingInitialWindowSize {
			code = http2.ErrCodeFlowControl
		}
		return 0, connError{code, "a setting out of its range"}
	}
	switch s.ID {
	case http2.SettingInitialWindowSize:
		delta = int64(s.Val) - l.initial
		l.initial = int64(s.Val)
	case http2.SettingMaxFrameSize:
		l.maxFrame = min(int(s.Val), maxFramePayload)
	case http2.SettingHeaderTableSize:
		l.enc.limitTable(s.Val)
	}
	return delta, nil
}
