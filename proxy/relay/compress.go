package relay

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
)

// maxInflated bounds a compressed message without another limit: a response,
// which an upstream that was not asked for a compressed one does not send.
const maxInflated = 64 << 20

// badEncoding refuses a grpc-encoding that the relay cannot undo, as a gRPC
// server does that does not have it.
func badEncoding(encoding string) *Status {
	switch encoding {
	case "", "identity", "gzip":
		return nil
	}
	return &Status{codes.Unimplemented, fmt.Sprintf("grpc: Decompressor is not installed for grpc-encoding %q", encoding)}
}

// decompress replaces a message whose flag says that it is compressed by what
// it holds. The errors are those of a gRPC server.
func (p *Pair) decompress(s *stream, d Direction, in incoming) (incoming, *Status) {
	p.mu.Lock()
	encoding := s.half[d].encoding
	p.mu.Unlock()
	if in.flag != 1 {
		return in, &Status{codes.Internal, fmt.Sprintf("grpc: received unexpected payload format %d", in.flag)}
	}
	if encoding == "" || encoding == "identity" {
		return in, &Status{codes.Internal, "grpc: compressed flag set with identity or empty encoding"}
	}
	if st := badEncoding(encoding); st != nil {
		return in, st
	}
	limit := s.limit(d)
	if d == Response || s.max == 0 {
		limit = maxInflated
	}
	msg, err := inflate(in.msg, limit)
	if err != nil {
		return in, &Status{codes.Internal, "grpc: failed to decompress the message: " + err.Error()}
	}
	if len(msg) > limit {
		return in, &Status{codes.ResourceExhausted, fmt.Sprintf("grpc: received message after decompression larger than max %d", limit)}
	}
	in.buf.free()
	return incoming{msg: msg, buf: &buffer{b: msg}, last: in.last}, nil
}

// inflate decompresses at most one byte more than limit.
func inflate(b []byte, limit int) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, int64(limit)+1))
}
