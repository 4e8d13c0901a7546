package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// maxServing is how many handlers may be at work for one client.
const maxServing = 1000

// errStreamEnded is what a handler gets that reads or writes for nobody.
var errStreamEnded = errors.New("relay: the stream has ended")

// served is a stream that a handler answers here. The handler has a goroutine of
// its own, which Run waits for; its context ends with the stream. What the client
// sends waits in the stream's half, bounded by the stream's window, which is given
// back as the handler reads. What the handler writes is queued as what comes from an
// upstream is, and a handler that is ahead of its client waits.
type served struct {
	pair   *Pair
	stream *stream
	ctx    context.Context
	// wakes tell the handler, by direction, that bytes have come or that there is
	// room for more. Each holds one token.
	wakes [2]chan struct{}
}

// serve starts a handler. mu is held.
func (p *Pair) serve(s *stream, handler http.Handler, r *http.Request) {
	p.answeredID = max(p.answeredID, s.id)
	if p.serving >= maxServing {
		p.answerHTTP(s, http.StatusServiceUnavailable, "etcdseal: too many requests at once on one connection\n")
		return
	}
	v := &served{
		pair: p, stream: s, ctx: s.waitContext(p.ctx),
		wakes: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
	}
	s.served = v
	if r.Header.Get("Expect") == "100-continue" {
		r.Header.Del("Expect")
		p.push(s, Response, item{kind: itemHeaders, info: true, fields: []hpack.HeaderField{{Name: ":status", Value: "100"}}})
	}
	r = r.WithContext(v.ctx)
	if r.ContentLength != 0 {
		r.Body = &requestBody{served: v}
	}
	p.serving++
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		v.run(handler, r)
	}()
}

// run is a handler's goroutine. One that panics resets its stream and nothing else,
// as in net/http.
func (v *served) run(handler http.Handler, r *http.Request) {
	w := &responseWriter{served: v, header: http.Header{}, head: r.Method == http.MethodHead}
	finished := false
	defer func() {
		if !finished {
			_ = recover()
		}
		p, s := v.pair, v.stream
		p.mu.Lock()
		p.serving--
		if p.streams[s.id] == s {
			p.endServed(s, w, finished)
		}
		p.flushLocked(Request)
	}()
	handler.ServeHTTP(w, r)
	finished = true
}

// endServed ends a stream whose handler has returned. mu is held.
func (p *Pair) endServed(s *stream, w *responseWriter, finished bool) {
	if !finished {
		p.resetBoth(s, http2.ErrCodeInternal)
		return
	}
	s.half[Request].swallow = true
	p.clearInput(s, Request)
	if !w.begun { // an answer before the end of the request would hide what is wrong with the rest
		p.answerAtEnd(s, w.last()...)
		return
	}
	for _, it := range w.last() {
		p.push(s, Response, it)
	}
	if !s.half[Request].endIn {
		p.push(s, Response, item{kind: itemReset, code: http2.ErrCodeNo})
	}
	p.settle(s)
}

// take keeps data for the handler to read. mu is held.
func (v *served) take(data []byte) {
	p, s := v.pair, v.stream
	h, l := &s.half[Request], p.legs[Request]
	if l.loose+int64(len(data)) > maxLoose {
		p.resetBoth(s, http2.ErrCodeEnhanceYourCalm)
		return
	}
	l.loose += int64(len(data))
	h.raw = append(h.raw, data...)
	v.wake(Request)
}

// wake lets a handler that waits look again.
func (v *served) wake(d Direction) {
	select {
	case v.wakes[d] <- struct{}{}:
	default:
	}
}

// wait waits for a wake.
func (v *served) wait(d Direction) error {
	select {
	case <-v.wakes[d]:
		return nil
	case <-v.ctx.Done():
		return errStreamEnded
	}
}

// push queues a piece of the response as soon as there is room for it.
func (v *served) push(it item) error {
	p, s := v.pair, v.stream
	for {
		p.mu.Lock()
		if s.closed[Request] || p.closed {
			p.mu.Unlock()
			return errStreamEnded
		}
		if !p.full(s, Response, 1) {
			p.push(s, Response, it)
			p.flushLocked(Request)
			return nil
		}
		p.mu.Unlock()
		if err := v.wait(Response); err != nil {
			return err
		}
	}
}

// requestBody is the body of a served request. One goroutine at a time reads it, and
// nobody once the handler has returned gets more of it.
type requestBody struct{ served *served }

// Read implements io.Reader.
func (b *requestBody) Read(to []byte) (int, error) {
	v := b.served
	p, s := v.pair, v.stream
	h := &s.half[Request]
	for {
		p.mu.Lock()
		switch {
		case h.swallow || s.closed[Request] || p.closed:
			p.mu.Unlock()
			return 0, errStreamEnded
		case len(h.raw) > 0:
			n := copy(to, h.raw)
			if h.raw = h.raw[n:]; len(h.raw) == 0 {
				h.raw = nil
			}
			p.legs[Request].loose -= int64(n)
			h.credit += int64(n)
			p.repayStream(s, Request)
			p.flushLocked(Request)
			return n, nil
		case h.endIn:
			p.mu.Unlock()
			return 0, io.EOF
		}
		p.mu.Unlock()
		if err := v.wait(Request); err != nil {
			return 0, err
		}
	}
}

// Close implements io.Closer. What is not read is dropped when the handler returns.
func (b *requestBody) Close() error { return nil }

// newRequest is the request that a handler gets for a header list. end says that it
// has no body.
func newRequest(conn net.Conn, fields []hpack.HeaderField, end bool) (*http.Request, error) {
	r := &http.Request{
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, Body: http.NoBody,
		RemoteAddr: conn.RemoteAddr().String(),
	}
	for _, f := range fields {
		switch f.Name {
		case ":method":
			r.Method = f.Value
		case ":path":
			r.RequestURI = f.Value
		case ":authority":
			r.Host = f.Value
		case ":scheme":
		case "cookie": // RFC 9113, 8.2.3: it may come in pieces
			if old := r.Header.Get("Cookie"); old != "" {
				f.Value = old + "; " + f.Value
			}
			r.Header.Set("Cookie", f.Value)
		default:
			r.Header.Add(f.Name, f.Value)
		}
	}
	if r.Host == "" {
		r.Host = r.Header.Get("Host")
	}
	r.Header.Del("Host")
	if r.ContentLength = contentLength(fields); end {
		r.ContentLength = 0
	}
	target, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return nil, errors.New("the path is not one of a URL")
	}
	r.URL = target
	return r, nil
}
