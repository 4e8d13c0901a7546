package relay

import (
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// onResponse takes a header block from the upstream.
func (p *Pair) onResponse(id uint32, fields []hpack.HeaderField, end bool) error {
	if id == 1 {
		return p.own.headers(p, fields, end)
	}
	s, err := p.lookup(Response, id)
	if s == nil {
		return err
	}
	h := &s.half[Response]
	switch {
	case h.swallow || s.closed[Request]:
		h.endIn = h.endIn || end
		p.settle(s)
	case h.endIn:
		p.resetBoth(s, http2.ErrCodeStreamClosed)
	case p.legs[Response].dec.size > maxHeaderList:
		p.resetBoth(s, http2.ErrCodeEnhanceYourCalm)
	case h.begun:
		p.onTrailers(s, Response, fields, end)
	default:
		p.beginResponse(s, fields, end)
	}
	return nil
}

// beginResponse takes the first header block of a response, or an
// informational one before it.
func (p *Pair) beginResponse(s *stream, fields []hpack.HeaderField, end bool) {
	h := &s.half[Response]
	status := ""
	for i := range fields {
		switch fields[i].Name {
		case ":status":
			status = fields[i].Value
		case "grpc-encoding":
			h.encoding = fields[i].Value
		}
	}
	informational := len(status) == 3 && status[0] == '1'
	if informational && end {
		p.resetBoth(s, http2.ErrCodeProtocol)
		return
	}
	h.begun = !informational
	if !informational && status != "200" {
		h.rewriting = false
	}
	if end {
		h.endIn = true
		s.code, _ = statusOf(fields)
	}
	if h.rewriting {
		fields = slices.DeleteFunc(fields, func(f hpack.HeaderField) bool {
			return f.Name == "grpc-encoding" || f.Name == "content-length"
		})
	}
	p.push(s, Response, item{kind: itemHeaders, fields: fields, end: end, info: informational})
	p.settle(s)
}
