package relay

import (
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// onRequest opens a stream.
func (p *Pair) onRequest(id uint32, l *leg, end bool) {
	if code := p.admit(id, l.dec); code != http2.ErrCodeNo {
		p.turnAway(l, id, end, code)
		return
	}
	r := Route{HTTPStatus: 431, HTTPBody: "etcdseal: the header list is too large\n"}
	if l.dec.size <= maxHeaderList {
		r = p.session.Route(l.dec.fields)
	}
	s := &stream{id: id, method: r.Method, codec: r.Codec, max: r.MaxRequest, long: r.Long, code: -1}
	if s.length = contentLength(l.dec.fields); s.wrongLength(0, end) {
		p.turnAway(l, id, end, http2.ErrCodeProtocol)
		return
	}
	var request *http.Request
	if r.Serve != nil {
		var err error
		if request, err = newRequest(l.conn, l.dec.fields, end); err != nil {
			r.HTTPStatus, r.HTTPBody = http.StatusBadRequest, "etcdseal: "+err.Error()+"\n"
		}
	}
	fields := p.requestFields(s, l.dec.fields)
	if st := badEncoding(s.half[Request].encoding); st != nil && r.Refuse == nil {
		r.Refuse = st
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.refusedByGoAway(id) {
		return // the upstream would not take it, and the client makes it again elsewhere
	}
	p.streams[id] = s
	p.recent[Request] = s
	for d := range s.half {
		h := &s.half[d]
		h.recvWindow = windows[d]
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
	case r.Serve != nil:
		p.serve(s, r.Serve, request)
	default:
		s.forwarded = true
		p.opened++
		p.push(s, Request, item{kind: itemHeaders, fields: fields, end: end})
	}
}

// admit decides whether a request may be looked at, and with which code it is
// reset otherwise.
func (p *Pair) admit(id uint32, block *decoder) http2.ErrCode {
	if id > maxStreamID-2 {
		return http2.ErrCodeRefusedStream // upstream there is no such number
	}
	p.mu.Lock()
	many := len(p.streams) >= p.cfg.MaxStreams
	p.mu.Unlock()
	if many {
		return http2.ErrCodeRefusedStream
	}
	if block.list != nil && block.list.valid {
		return http2.ErrCodeNo
	}
	if !validRequest(block.fields) {
		return http2.ErrCodeProtocol
	}
	if block.list != nil {
		block.list.valid = true
	}
	return http2.ErrCodeNo
}

// turnAway resets a stream that is not to be.
func (p *Pair) turnAway(l *leg, id uint32, end bool, code http2.ErrCode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.reset(id, code)
	if !end {
		p.left.add(id)
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

// answerHTTP answers a request that is not gRPC.
func (p *Pair) answerHTTP(s *stream, status int, body string) {
	p.answeredID = max(p.answeredID, s.id)
	s.half[Request].swallow = true
	p.answerAtEnd(s, item{kind: itemHeaders, fields: []hpack.HeaderField{
		{Name: ":status", Value: strconv.Itoa(status)},
		{Name: "content-type", Value: "text/plain; charset=utf-8"},
		{Name: "content-length", Value: strconv.Itoa(len(body))},
	}}, item{kind: itemData, data: []byte(body), end: true})
}

// maxIgnored is how long a request's body may be that is read to its end before
// the request is answered without it.
const maxIgnored = 64 << 10

// answerAtEnd ends a stream with items once all of the request, of which nothing is
// wanted any more, has come: an answer in the middle would take a RST_STREAM along,
// and hide what is wrong with the rest.
func (p *Pair) answerAtEnd(s *stream, items ...item) {
	s.later = items
	p.answerLater(s)
}

// answerLater does what answerAtEnd has put off, when it is time.
func (p *Pair) answerLater(s *stream) {
	items := s.later
	if items == nil || !s.half[Request].endIn && s.taken <= maxIgnored {
		return
	}
	s.later = nil
	for _, it := range items {
		p.push(s, Response, it)
	}
	if !s.half[Request].endIn {
		p.push(s, Response, item{kind: itemReset, code: http2.ErrCodeNo})
	}
	p.settle(s)
}

// contentLength is what a request says of its body's length, -1 if nothing, and
// -2 if nothing that makes sense.
func contentLength(fields []hpack.HeaderField) int64 {
	length := int64(-1)
	for i := range fields {
		if fields[i].Name != "content-length" {
			continue
		}
		n, err := strconv.ParseUint(fields[i].Value, 10, 63)
		if err != nil || length >= 0 && length != int64(n) {
			return -2
		}
		length = int64(n)
	}
	return length
}

// wrongLength takes n more bytes of a request's body, and reports whether it is
// not as long as its content-length says (RFC 9113, 8.1.1).
func (s *stream) wrongLength(n int, end bool) bool {
	s.taken += int64(n)
	return s.length == -2 || s.length >= 0 && (s.taken > s.length || end && s.taken < s.length)
}

// validTrailers checks the fields that end a request (RFC 9113, 8.1).
func validTrailers(fields []hpack.HeaderField) bool {
	for i := range fields {
		if f := &fields[i]; strings.HasPrefix(f.Name, ":") || !validField(f.Name, f.Value) {
			return false
		}
	}
	return true
}

// validRequest checks a request's fields as RFC 9113, 8.2 and 8.3 ask for.
func validRequest(fields []hpack.HeaderField) bool {
	var method, scheme, path, authority int
	regular := false
	for i := range fields {
		name, value := fields[i].Name, fields[i].Value
		if !strings.HasPrefix(name, ":") {
			regular = true
			if !validField(name, value) {
				return false
			}
			continue
		}
		if regular {
			return false
		}
		switch name {
		case ":method":
			method++
		case ":scheme":
			scheme++
		case ":authority":
			authority++
		case ":path":
			path++
			if value == "" {
				return false
			}
		default:
			return false
		}
	}
	return method == 1 && scheme == 1 && path == 1 && authority <= 1
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
