package relay

import (
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	idleBuffer = 2 << 10   // what a quiet connection keeps to read into
	busyBuffer = 128 << 10 // what a busy one borrows
	// quietReads is how many small reads in a row make a connection quiet.
	quietReads = 8
)

var busyBuffers = sync.Pool{New: func() any { return new([busyBuffer]byte) }}

// reader cuts a connection into frames. One goroutine uses it. A quiet
// connection costs idleBuffer bytes; a busy one borrows a large buffer.
type reader struct {
	src      io.Reader
	idle     []byte
	borrowed *[busyBuffer]byte
	buf      []byte // idle, or borrowed[:]
	r, w     int
	quiet    int

	made     time.Time
	lastRead atomic.Int64 // when the last bytes came, in nanoseconds since made
	waiting  atomic.Bool  // in a call to Read of src
}

func newReader(src io.Reader) *reader {
	rd := &reader{src: src, idle: make([]byte, idleBuffer), made: time.Now()}
	rd.buf = rd.idle
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
		rd.makeRoom(n)
		rd.waiting.Store(true)
		got, err := rd.src.Read(rd.buf[rd.w:])
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

// makeRoom gets the bytes that are left to the front of a buffer that can hold
// n of them, giving a borrowed buffer back when the connection is quiet.
func (rd *reader) makeRoom(n int) {
	left := rd.buf[rd.r:rd.w]
	switch {
	case rd.borrowed == nil && (n > len(rd.idle) || rd.quiet < 0):
		rd.borrowed = busyBuffers.Get().(*[busyBuffer]byte)
		rd.buf = rd.borrowed[:]
		rd.quiet = 0
		copy(rd.buf, left)
	case rd.borrowed != nil && rd.quiet >= quietReads && len(left) < len(rd.idle) && n <= len(rd.idle):
		copy(rd.idle, left)
		busyBuffers.Put(rd.borrowed)
		rd.borrowed = nil
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
	case rd.borrowed == nil && rd.w == len(rd.buf):
		rd.quiet = -1
	case got <= idleBuffer/2:
		rd.quiet++
	default:
		rd.quiet = 0
	}
}

// release gives a borrowed buffer back. The reader is not used afterwards.
func (rd *reader) release() {
	if rd.borrowed != nil {
		busyBuffers.Put(rd.borrowed)
		rd.borrowed = nil
		rd.buf = nil
		rd.r, rd.w = 0, 0
	}
}
