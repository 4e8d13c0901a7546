package relay

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// maxOwnAnswer bounds the answer to the proxy's own call.
const maxOwnAnswer = 4 << 20

// OwnCall is the proxy's own unary gRPC call on upstream stream 1. It is
// opened before any stream of the client, since stream numbers only rise.
type OwnCall struct {
	Path     string
	Metadata []hpack.HeaderField
	Message  []byte // without gRPC's prefix; at most 16 KiB
	// Done is called once, on a goroutine of its own, with the answer without
	// its prefix, or with a *Status.
	Done func(answer []byte, err error)
}

// ownCall is the state of that call. Pair.mu guards it.
type ownCall struct {
	done   func([]byte, error)
	opened bool // on stream 1
	answer []byte
}

// open writes the request; done is set already. mu is held.
func (o *ownCall) open(p *Pair, call *OwnCall) error {
	l := p.legs[Response]
	n := messagePrefixSize + len(call.Message)
	if n > l.maxFrame || int64(n) > min(l.sendWindow, l.initial) {
		return fmt.Errorf("relay: the proxy's own call of %d bytes does not fit the upstream's window", n)
	}
	o.opened = true
	p.opened++
	scheme := p.cfg.Scheme
	if scheme == "" {
		scheme = "http"
	}
	l.writeHeaders(1, append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: scheme},
		{Name: ":path", Value: call.Path},
		{Name: ":authority", Value: "etcdseal"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}, call.Metadata...), false)
	b := appendFrameHeader(l.room(), n, http2.FrameData, http2.FlagDataEndStream, 1)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(call.Message)))
	l.put(append(b, call.Message...))
	l.sendWindow -= int64(n)
	return nil
}

// finish hands the result over, once.
func (o *ownCall) finish(p *Pair, answer []byte, err error) {
	done := o.done
	if done == nil {
		return
	}
	o.done, o.answer = nil, nil
	if o.opened {
		p.opened--
	}
	go done(answer, err)
}

func (o *ownCall) headers(p *Pair, fields []hpack.HeaderField, end bool) error {
	if !end {
		return nil
	}
	code, text := statusOf(fields)
	switch {
	case code > 0:
		o.finish(p, nil, &Status{codes.Code(code), text})
	case code < 0:
		o.finish(p, nil, &Status{codes.Unavailable, "the upstream's answer has no gRPC status"})
	case len(o.answer) < messagePrefixSize || int(binary.BigEndian.Uint32(o.answer[1:])) != len(o.answer)-messagePrefixSize || o.answer[0] != 0:
		o.finish(p, nil, &Status{codes.Unavailable, "the upstream's answer is not one gRPC message"})
	default:
		o.finish(p, o.answer[messagePrefixSize:], nil)
	}
	return nil
}

func (o *ownCall) data(p *Pair, l *leg, data []byte, n int, end bool) error {
	if o.done == nil {
		return nil
	}
	if len(o.answer)+len(data) > maxOwnAnswer || end {
		l.reset(1, http2.ErrCodeCancel)
		o.finish(p, nil, &Status{codes.Unavailable, "the upstream's answer is not one gRPC message"})
		return nil
	}
	o.answer = append(o.answer, data...)
	if n > 0 {
		l.control(appendWindowUpdate(l.room(), 1, int64(n)))
	}
	return nil
}

func (o *ownCall) reset(p *Pair, code http2.ErrCode) {
	o.finish(p, nil, &Status{codes.Unavailable, "the upstream reset the call: " + code.String()})
}
