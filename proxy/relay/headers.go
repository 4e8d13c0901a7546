package relay

import (
	"slices"
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
		return p.onResponse(f.id, l.dec.fields, end)
	}
	if f.id&1 == 0 {
		return protocolError("a client's stream of an even number")
	}
	p.mu.Lock()
	if f.id > p.lastID {
		p.lastID = f.id
		ignored := p.refusedByGoAway(f.id)
		p.mu.Unlock()
		if !ignored {
			p.onRequest(f.id, l, end)
		}
		return nil
	}
	defer p.mu.Unlock()
	if p.refusedByGoAway(f.id) {
		return nil
	}
	if s := p.streams[f.id]; s != nil {
		p.onTrailers(s, Request, l.dec.fields, end)
		return nil
	}
	return p.onStrayHeaders(f.id, end)
}

// onTrailers takes the header block that ends one direction of a stream.
func (p *Pair) onTrailers(s *stream, d Direction, fields []hpack.HeaderField, end bool) {
	h := &s.half[d]
	if h.endIn {
		p.resetBoth(s, http2.ErrCodeStreamClosed)
		return
	}
	if !end || d == Request && (s.wrongLength(0, true) || !validTrailers(fields)) {
		p.resetBoth(s, http2.ErrCodeProtocol)
		return
	}
	if p.legs[d].dec.size > maxHeaderList {
		p.resetBoth(s, http2.ErrCodeEnhanceYourCalm)
		return
	}
	h.endIn = true
	if d == Response {
		s.code, _ = statusOf(fields)
	}
	if s.gone(d) {
		p.answerLater(s)
		p.settle(s)
		return
	}
	if s.served != nil { // it has no use for them
		s.served.take(nil)
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
