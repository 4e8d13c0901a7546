package relay

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// onHeadersFrame begins a header block.
func (p *Pair) onHeadersFrame(d Direction, f frame) error {
	if f.id == 0 {
		return protocolError("HEADERS on stream 0")
	}
	block, err := f.unpad()
	if err != nil {
		return err
	}
	if f.has(http2.FlagHeadersEndHeaders) {
		return p.onBlock(d, f, block)
	}
	l := p.legs[d]
	l.inBlock, l.continuations, l.blockFrame = true, 0, f
	l.blockFrame.payload = nil
	l.block = append(l.block[:0], block...)
	return nil
}

// onContinuation goes on with a header block; how long it may get is bounded.
func (p *Pair) onContinuation(d Direction, f frame) error {
	l := p.legs[d]
	if !l.inBlock {
		return protocolError("CONTINUATION without HEADERS")
	}
	l.block = append(l.block, f.payload...)
	l.continuations++
	if l.continuations > maxContinuations || len(l.block) > maxHeaderList {
		return connError{http2.ErrCodeEnhanceYourCalm, "a header block without end"}
	}
	if !f.has(http2.FlagContinuationEndHeaders) {
		return nil
	}
	l.inBlock = false
	block := l.block
	l.block = nil
	return p.onBlock(d, l.blockFrame, block)
}

// onBlock takes a whole header block. It is decoded whatever becomes of its
// stream, since the table of the connection goes on from it.
func (p *Pair) onBlock(d Direction, f frame, block []byte) error {
	l := p.legs[d]
	if err := l.decode(block); err != nil {
		return err
	}
	end := f.has(http2.FlagHeadersEndStream)
	if d == Response {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.onResponse(f.id, l.fields, end)
	}
	if f.id&1 == 0 {
		return protocolError("a client's stream of an even number")
	}
	p.mu.Lock()
	if f.id > p.lastID {
		ignore := p.goAwaySent && f.id > p.goAwayLast || p.upstreamEnd
		if !ignore {
			p.lastID = f.id
		}
		p.mu.Unlock()
		if !ignore {
			p.onRequest(f.id, l, end)
		}
		return nil
	}
	defer p.mu.Unlock()
	s := p.streams[f.id]
	if s == nil {
		if p.goAwaySent && f.id > p.goAwayLast {
			return nil
		}
		return connError{http2.ErrCodeStreamClosed, "HEADERS on a stream that has ended"}
	}
	p.onTrailers(s, Request, l.fields, end)
	return nil
}

// onRequest opens a stream.
func (p *Pair) onRequest(id uint32, l *leg, end bool) {
	if code, ok := checkRequest(l.fields); !ok {
		p.mu.Lock()
		p.legs[Request].reset(id, code)
		p.mu.Unlock()
		return
	}
	r := Route{HTTPStatus: 431, HTTPBody: "etcdseal: the header list is too large\n"}
	if l.fieldsSize <= maxHeaderList {
		r = p.session.Route(l.fields)
	}
	s := &stream{id: id, method: r.Method, codec: r.Codec, max: r.MaxRequest, long: r.Long, code: -1}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.streams[id] = s
	for d := range s.half {
		h := &s.half[d]
		h.recvWindow = streamWindow
		h.sendWindow = p.legs[1-d].initial
		h.rewriting = r.Codec != nil
	}
	s.half[Request].endIn = end
	p.observeStart(s)
	switch {
	case r.Refuse != nil:
		p.refuse(s, r.Refuse)
	case r.HTTPStatus != 0:
		p.answerHTTP(s, r.HTTPStatus, r.HTTPBody)
	default:
		s.forwarded = true
		p.opened++
		fields := p.requestFields(s, l.fields)
		p.push(s, Request, item{kind: itemHeaders, fields: fields, end: end})
	}
}

// requestFields prepares a request's fields for the upstream, in place. What
// would let the upstream compress or count what is rewritten is left out.
func (p *Pair) requestFields(s *stream, fields []hpack.HeaderField) []hpack.HeaderField {
	kept := fields[:0]
	for _, f := range fields {
		switch {
		case f.Name == ":scheme" && p.cfg.Scheme != "":
			f.Value = p.cfg.Scheme
		case s.codec == nil:
		case f.Name == "grpc-encoding":
			s.half[Request].encoding = f.Value
			continue
		case f.Name == "grpc-accept-encoding" || f.Name == "content-length":
			continue
		}
		kept = append(kept, f)
	}
	return kept
}

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
	case p.legs[Response].fieldsSize > maxHeaderList:
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

// onTrailers takes the header block that ends one direction of a stream.
func (p *Pair) onTrailers(s *stream, d Direction, fields []hpack.HeaderField, end bool) {
	h := &s.half[d]
	if !end || h.endIn {
		p.resetBoth(s, http2.ErrCodeProtocol)
		return
	}
	h.endIn = true
	if d == Response {
		s.code, _ = statusOf(fields)
	}
	if s.gone(d) {
		p.settle(s)
		return
	}
	if h.rewriting && (h.state != inputFree || len(h.entries) > 0) || d == Request && h.asm.have > 0 {
		h.trailers = slices.Clone(fields)
		p.finishInput(s, d)
	} else {
		p.push(s, d, item{kind: itemHeaders, fields: fields, end: true})
	}
	p.settle(s)
}

// answerHTTP answers a request that is not gRPC.
func (p *Pair) answerHTTP(s *stream, status int, body string) {
	fields := []hpack.HeaderField{
		{Name: ":status", Value: strconv.Itoa(status)},
		{Name: "content-type", Value: "text/plain; charset=utf-8"},
		{Name: "content-length", Value: strconv.Itoa(len(body))},
	}
	p.answeredID = max(p.answeredID, s.id)
	s.half[Request].swallow = true
	p.push(s, Response, item{kind: itemHeaders, fields: fields})
	p.push(s, Response, item{kind: itemData, data: []byte(body), end: true})
	if !s.half[Request].endIn {
		p.push(s, Response, item{kind: itemReset, code: http2.ErrCodeNo})
	}
	p.settle(s)
}

// checkRequest checks a request's fields as RFC 9113, 8.2 and 8.3 ask for.
func checkRequest(fields []hpack.HeaderField) (http2.ErrCode, bool) {
	var method, scheme, path, authority int
	regular := false
	for i := range fields {
		name, value := fields[i].Name, fields[i].Value
		if !strings.HasPrefix(name, ":") {
			regular = true
			if !validField(name, value) {
				return http2.ErrCodeProtocol, false
			}
			continue
		}
		if regular {
			return http2.ErrCodeProtocol, false
		}
		switch name {
		case ":method":
			method++
		case ":scheme":
			scheme++
		case ":authority":
			authority++
		case ":path":
			if value == "" {
				return http2.ErrCodeProtocol, false
			}
			path++
		default:
			return http2.ErrCodeProtocol, false
		}
	}
	return http2.ErrCodeProtocol, method == 1 && scheme == 1 && path == 1 && authority <= 1
}

// validField refuses names with capitals and fields that belong to one
// connection of HTTP/1.
func validField(name, value string) bool {
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	switch name {
	case "", "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return false
	case "te":
		return value == "trailers"
	}
	return true
}

func (p *Pair) observeStart(s *stream) {
	if o := p.cfg.Observer; o != nil {
		s.started = time.Now()
		o.StreamStarted(s.method)
	}
}

func (p *Pair) observeEnd(s *stream) {
	if o := p.cfg.Observer; o != nil && !s.ended {
		s.ended = true
		o.StreamEnded(s.method, s.code, time.Since(s.started))
	}
}
