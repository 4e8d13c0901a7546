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
	if code := p.admit(id, l.fields); code != http2.ErrCodeNo {
		p.mu.Lock()
		l.reset(id, code)
		p.mu.Unlock()
		return
	}
	r := Route{HTTPStatus: 431, HTTPBody: "etcdseal: the header list is too large\n"}
	if l.fieldsSize <= maxHeaderList {
		r = p.session.Route(l.fields)
	}
	var request *http.Request
	if r.Serve != nil {
		var err error
		if request, err = newRequest(l.conn, l.fields, end); err != nil {
			r.HTTPStatus, r.HTTPBody = http.StatusBadRequest, "etcdseal: "+err.Error()+"\n"
		}
	}
	s := &stream{id: id, method: r.Method, codec: r.Codec, max: r.MaxRequest, long: r.Long, code: -1}
	fields := p.requestFields(s, l.fields)
	if st := badEncoding(s.half[Request].encoding); st != nil && r.Refuse == nil {
		r.Refuse = st
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.refusedByGoAway(id) {
		return // the upstream would not take it, and the client makes it again elsewhere
	}
	p.streams[id] = s
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
func (p *Pair) admit(id uint32, fields []hpack.HeaderField) http2.ErrCode {
	if id > maxStreamID-2 {
		return http2.ErrCodeRefusedStream // upstream there is no such number
	}
	p.mu.Lock()
	many := len(p.streams) >= p.cfg.MaxStreams
	p.mu.Unlock()
	if many {
		return http2.ErrCodeRefusedStream
	}
	if !validRequest(fields) {
		return http2.ErrCodeProtocol
	}
	return http2.ErrCodeNo
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
