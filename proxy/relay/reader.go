package relay

import (
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/etcdseal/etcdseal/proxy/socket"
)

const (
	// recordBuffer is what is read into from a connection that cannot tell beforehand whether
	// there is anything to read, such as TLS, which gives out a record of 16 KiB at most.
	recordBuffer = 32 << 10
	idleBuffer   = 2 << 10 // what a quiet connection of that kind waits with
	// quietReads is how many small reads in a row make it quiet.
	quietReads = 8
)

var recordBuffers = sync.Pool{New: func() any { return new([recordBuffer]byte) }}

// reader cuts a connection into frames. One goroutine uses it. While a socket has
// nothing to read it costs no buffer, however busy it was before, unless it waits for the
// rest of a frame; another connection costs idleBuffer bytes when it is quiet and borrows a
// larger buffer when it is busy.
type reader struct {
	src    io.Reader
	socket *socket.Conn // nil if src is not one
	idle   []byte
	record *[recordBuffer]byte
	buf    []byte // idle, the record's or the socket's
	r, w   int
	quiet  int

	made     time.Time
	lastRead atomic.Int64 // when the last bytes came, in nanoseconds since made
	waiting  atomic.Bool  // for bytes of src
}

func newReader(src io.Reader) *reader {
	rd := &reader{src: src, made: time.Now()}
	if rd.socket, _ = src.(*socket.Conn); rd.socket == nil {
		rd.idle = make([]byte, idleBuffer)
		rd.buf = rd.idle
	}
	return rd
}

// next returns the next frame. Its payload, and those of earlier frames, are
// valid until the next call.
func (rd *reader) next() (frame, error) {
	if err := rd.need(frameHeaderSize); err != nil {
		return frame{}, err
	}
	b := rd.buf[rd.r:]
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	f := frame{
		typ:   http2.FrameType(b[3]),
		flags: http2.Flags(b[4]),
		id:    binary.BigEndian.Uint32(b[5:]) & maxStreamID,
	}
	if length > maxFramePayload {
		return f, connError{http2.ErrCodeFrameSize, "a frame larger than SETTINGS_MAX_FRAME_SIZE"}
	}
	if err := rd.need(frameHeaderSize + length); err != nil {
		return f, err
	}
	f.payload = rd.buf[rd.r+frameHeaderSize : rd.r+frameHeaderSize+length]
	rd.r += frameHeaderSize + length
	return f, nil
}

// ready reports whether a whole frame can be had without reading.
func (rd *reader) ready() bool {
	b := rd.buf[rd.r:rd.w]
	if len(b) < frameHeaderSize {
		return false
	}
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	return length > maxFramePayload || len(b) >= frameHeaderSize+length
}

// need reads until n bytes are in the buffer.
func (rd *reader) need(n int) error {
	for rd.w-rd.r < n {
		rd.waiting.Store(true)
		got, err := rd.fill(n)
		rd.waiting.Store(false)
		if got > 0 {
			rd.lastRead.Store(int64(time.Since(rd.made)))
		}
		rd.w += got
		rd.judge(got)
		if rd.w-rd.r >= n {
			return nil
		}
		if err != nil {
			if err == io.EOF && rd.w > rd.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// fill reads once, into a buffer that can hold n bytes with those that are left.
func (rd *reader) fill(n int) (got int, err error) {
	if rd.socket != nil && rd.r == rd.w {
		rd.r, rd.w = 0, 0
		rd.socket.GiveBack()
		rd.buf, got, err = rd.socket.Borrow()
		return got, err
	}
	rd.makeRoom(n)
	return rd.src.Read(rd.buf[rd.w:])
}

// makeRoom gets the bytes that are left to the front of a buffer that can hold
// n of them, giving a borrowed buffer back when the connection is quiet.
func (rd *reader) makeRoom(n int) {
	left := rd.buf[rd.r:rd.w]
	switch {
	case rd.socket != nil:
		copy(rd.buf, left)
	case rd.record == nil && (n > len(rd.idle) || rd.quiet < 0):
		rd.record = recordBuffers.Get().(*[recordBuffer]byte)
		rd.buf = rd.record[:]
		rd.quiet = 0
		copy(rd.buf, left)
	case rd.record != nil && rd.quiet >= quietReads && len(left) < len(rd.idle) && n <= len(rd.idle):
		copy(rd.idle, left)
		recordBuffers.Put(rd.record)
		rd.record = nil
		rd.buf = rd.idle
	case rd.r > 0:
		copy(rd.buf, left)
	}
	rd.r, rd.w = 0, len(left)
}

// judge counts quiet reads; a read that filled the small buffer makes quiet
// negative, which asks for the large one.
func (rd *reader) judge(got int) {
	switch {
	case rd.socket != nil:
	case rd.record == nil && rd.w == len(rd.buf):
		rd.quiet = -1
	case got <= idleBuffer/2:
		rd.quiet++
	default:
		rd.quiet = 0
	}
}

// release gives borrowed buffers back. The reader is not used afterwards.
func (rd *reader) release() {
	if rd.socket != nil {
		rd.socket.GiveBack()
	}
	if rd.record != nil {
		recordBuffers.Put(rd.record)
		rd.record = nil
	}
	rd.buf = nil
	rd.r, rd.w = 0, 0
}
