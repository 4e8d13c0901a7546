package relay

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
)

// Sizes of HTTP/2 (RFC 9113) in bytes.
const (
	frameHeaderSize   = 9
	maxFramePayload   = 16384 // what this end accepts: the least that HTTP/2 allows
	defaultWindow     = 65535
	maxWindow         = 1<<31 - 1
	maxStreamID       = 1<<31 - 1
	messagePrefixSize = 5 // gRPC: a flag and the length
)

// frame is one HTTP/2 frame. Its payload is valid until the next one is read.
type frame struct {
	typ     http2.FrameType
	flags   http2.Flags
	id      uint32
	payload []byte
}

func (f frame) has(flag http2.Flags) bool { return f.flags&flag != 0 }

// appendFrameHeader appends the 9 bytes that begin a frame.
func appendFrameHeader(dst []byte, length int, typ http2.FrameType, flags http2.Flags, id uint32) []byte {
	return append(dst,
		byte(length>>16), byte(length>>8), byte(length),
		byte(typ), byte(flags),
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendReset(dst []byte, id uint32, code http2.ErrCode) []byte {
	dst = appendFrameHeader(dst, 4, http2.FrameRSTStream, 0, id)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

func appendWindowUpdate(dst []byte, id uint32, n int64) []byte {
	dst = appendFrameHeader(dst, 4, http2.FrameWindowUpdate, 0, id)
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

func appendPing(dst []byte, flags http2.Flags, data [8]byte) []byte {
	dst = appendFrameHeader(dst, 8, http2.FramePing, flags, 0)
	return append(dst, data[:]...)
}

func appendGoAway(dst []byte, last uint32, code http2.ErrCode, debug string) []byte {
	dst = appendFrameHeader(dst, 8+len(debug), http2.FrameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

func appendSettings(dst []byte, settings ...http2.Setting) []byte {
	dst = appendFrameHeader(dst, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Val)
	}
	return dst
}

// connError ends a connection with GOAWAY.
type connError struct {
	code   http2.ErrCode
	reason string
}

func (e connError) Error() string { return fmt.Sprintf("%v: %s", e.code, e.reason) }

func protocolError(reason string) error { return connError{http2.ErrCodeProtocol, reason} }

// unpad takes the padding, and of HEADERS the priority, off a payload.
func (f frame) unpad() ([]byte, error) {
	b := f.payload
	pad := 0
	if f.has(http2.FlagDataPadded) { // the same bit on HEADERS
		if len(b) < 1 {
			return nil, connError{http2.ErrCodeFrameSize, "no room for the padding's length"}
		}
		pad, b = int(b[0]), b[1:]
	}
	if f.typ == http2.FrameHeaders && f.has(http2.FlagHeadersPriority) {
		if len(b) < 5 {
			return nil, connError{http2.ErrCodeFrameSize, "no room for the priority"}
		}
		if binary.BigEndian.Uint32(b)&maxStreamID == f.id {
			return nil, protocolError("a stream that depends on itself")
		}
		b = b[5:]
	}
	if pad > len(b) {
		return nil, protocolError("more padding than payload")
	}
	return b[:len(b)-pad], nil
}
