package gateway

import (
	"errors"
	"io"
	"sync/atomic"

	gw "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
)

const (
	// jsonFactor and jsonSlack are how much longer than its message JSON may be: base64
	// takes 4/3, escapes and field names the rest.
	jsonFactor = 4
	jsonSlack  = 64 << 10
)

// What a client gets whose message is not read on.
var (
	errTooLarge = errors.New("etcdseal: the message is too large")
	errTooMany  = errors.New("etcdseal: too many messages are being read")
)

// marshaler bounds what the messages of requests take before they are decoded: each
// of them, and all together.
type marshaler struct {
	gw.HTTPBodyMarshaler
	limit, memory int64
	used          atomic.Int64
}

// NewDecoder implements runtime.Marshaler.
func (m *marshaler) NewDecoder(from io.Reader) gw.Decoder {
	bounded := &boundedReader{from: from, marshaler: m}
	decoder := m.HTTPBodyMarshaler.NewDecoder(bounded)
	return gw.DecoderFunc(func(v any) error {
		bounded.read = 0
		defer func() { m.used.Add(-bounded.read) }()
		return decoder.Decode(v)
	})
}

// boundedReader fails when more is read than the marshaler allows.
type boundedReader struct {
	from      io.Reader
	marshaler *marshaler
	read      int64 // of this message, more or less: a decoder reads ahead
}

// Read implements io.Reader.
func (r *boundedReader) Read(b []byte) (int, error) {
	m := r.marshaler
	switch {
	case r.read >= m.limit:
		return 0, errTooLarge
	case m.memory > 0 && m.used.Load() >= m.memory:
		return 0, errTooMany
	}
	n, err := r.from.Read(b[:min(int64(len(b)), m.limit-r.read)])
	r.read += int64(n)
	m.used.Add(int64(n))
	return n, err
}
