package relay

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
)

// incoming is one gRPC message as it came. buf is its memory when it has some
// of its own; otherwise msg is valid only until the reader goes on.
type incoming struct {
	flag byte
	msg  []byte
	buf  *buffer
	last bool // nothing has come after it
}

// entryState says how far a held message has come.
type entryState uint8

const (
	entryHeld    entryState = iota // behind another one of its lane
	entryWaiting                   // in Codec.Wait
	entryJudged                    // has its verdict
)

// entry is a message that waits, or that is held in order behind one that
// does.
type entry struct {
	state   entryState
	lane    int64
	barrier bool
	in      incoming
	verdict Verdict
}

// message passes one message through the codec and on. mu is not held.
func (p *Pair) message(s *stream, d Direction, in incoming) {
	in, st := p.decompress(s, d, in)
	if st != nil {
		p.mu.Lock()
		p.refuse(s, st)
		p.mu.Unlock()
		return
	}
	p.mu.Lock()
	h := &s.half[d]
	behind := len(h.entries) > 0
	p.mu.Unlock()
	if behind {
		p.hold(s, d, in, entryHeld)
		return
	}
	var lent *buffer
	var scratch []byte
	if d == Request {
		lent = newBuffer(len(in.msg) + 256) // for an envelope or two
		scratch = lent.b
	}
	v := s.codec.Rewrite(d, in.msg, scratch)
	if v.Action == Park {
		lent.free()
		p.hold(s, d, in, entryWaiting)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	in.last = in.last && h.endIn && len(h.raw) == 0
	p.apply(s, d, in, v, lent)
}

// hold keeps a message in its place among the stream's entries and, when it is
// to wait, starts that.
func (p *Pair) hold(s *stream, d Direction, in incoming, state entryState) {
	if in.buf == nil {
		in.buf = newBuffer(len(in.msg))
		in.buf.b = append(in.buf.b, in.msg...)
		in.msg = in.buf.b
	}
	e := &entry{state: state, in: in}
	e.lane, e.barrier = s.codec.Lane(d, in.msg)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.gone(d) {
		return
	}
	s.half[d].entries = append(s.half[d].entries, e)
	if state == entryWaiting {
		p.startWait(s, d, e)
	} else {
		p.advance(s, d)
	}
}

// startWait lets an entry wait on a goroutine of its own. mu is held.
func (p *Pair) startWait(s *stream, d Direction, e *entry) {
	e.state = entryWaiting
	n := int64(len(e.in.msg))
	if p.closed {
		return
	}
	if !p.cfg.Budget.park(n) {
		p.refuse(s, &Status{codes.Unavailable, "etcdseal: too many calls wait for a key"})
		return
	}
	ctx := s.waitContext(p.ctx)
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		v := s.codec.Wait(ctx, d, e.in.msg)
		p.cfg.Budget.unpark(n)
		p.mu.Lock()
		e.verdict, e.state = v, entryJudged
		p.advance(s, d)
		p.mu.Unlock()
		p.flush()
	}()
}

// advance passes on every entry that may go: those that are judged and behind
// nothing of their lane. mu is held, but not while the codec works.
func (p *Pair) advance(s *stream, d Direction) {
	h := &s.half[d]
	if h.advancing {
		return // whoever does it sees the change when it looks again
	}
	h.advancing = true
	for {
		e := h.next()
		if e == nil {
			break
		}
		if e.state == entryHeld {
			p.mu.Unlock()
			v := s.codec.Rewrite(d, e.in.msg, nil)
			p.mu.Lock()
			if !slices.Contains(h.entries, e) {
				break // the stream has ended
			}
			if v.Action == Park {
				p.startWait(s, d, e)
				continue
			}
			e.verdict, e.state = v, entryJudged
		}
		h.entries = slices.DeleteFunc(h.entries, func(x *entry) bool { return x == e })
		last := e.in.last && h.endIn && len(h.entries) == 0 && h.state == inputFree && h.asm.have == 0
		e.in.last = last
		p.apply(s, d, e.in, e.verdict, nil)
	}
	h.advancing = false
	if len(h.entries) == 0 {
		h.entries = nil
	}
	if h.state == inputParked && len(h.entries) <= maxParked/2 && !p.closed {
		p.work.Add(1)
		go func() { defer p.work.Done(); p.resume(s, d, inputParked) }()
	}
	p.finishInput(s, d)
}

// next finds the first entry that may go on: one that does not wait, with
// nothing before it in its lane and no barrier before it.
func (h *half) next() *entry {
	for i, e := range h.entries {
		if e.state == entryWaiting {
			continue
		}
		free := !slices.ContainsFunc(h.entries[:i], func(x *entry) bool {
			return x.barrier || e.barrier || x.lane == e.lane
		})
		if free {
			return e
		}
	}
	return nil
}

// apply does what a verdict says. mu is held.
func (p *Pair) apply(s *stream, d Direction, in incoming, v Verdict, lent *buffer) {
	if s.gone(d) {
		in.buf.free()
		lent.free()
		return
	}
	if v.Untouched && d == Request {
		s.half[Response].rewriting = false
	}
	switch v.Action {
	case Refuse:
		in.buf.free()
		lent.free()
		p.refuse(s, v.Status)
		return
	case Drop:
		in.buf.free()
		lent.free()
	default:
		it := messageItem(v.Msg, nil)
		it.end = in.last && d == Request
		switch {
		case within(v.Msg, in.msg):
			it.buf = in.buf
			lent.free()
		case lent != nil && within(v.Msg, lent.b):
			it.buf = lent
			in.buf.free()
		default:
			it.buf = &buffer{b: v.Msg} // the codec's gift
			in.buf.free()
			lent.free()
		}
		p.push(s, d, it)
	}
	if v.Reply != nil {
		p.push(s, 1-d, messageItem(v.Reply, &buffer{b: v.Reply}))
	}
}

// stopParked ends the waits of a stream and forgets what it held. mu is held.
func (p *Pair) stopParked(s *stream) {
	if s.cancel != nil {
		s.cancel()
	}
	for d := range s.half {
		s.half[d].entries = nil
	}
}

// decompress replaces a compressed message by what it holds.
func (p *Pair) decompress(s *stream, d Direction, in incoming) (incoming, *Status) {
	if in.flag == 0 {
		return in, nil
	}
	p.mu.Lock()
	encoding := s.half[d].encoding
	p.mu.Unlock()
	if in.flag != 1 || encoding == "" || encoding == "identity" {
		return in, &Status{codes.Internal, "grpc: compressed flag set with identity or empty encoding"}
	}
	if encoding != "gzip" {
		return in, &Status{codes.Unimplemented, fmt.Sprintf("grpc: Decompressor is not installed for grpc-encoding %q", encoding)}
	}
	limit := s.limit(d)
	z, err := gzip.NewReader(bytes.NewReader(in.msg))
	if err != nil {
		return in, &Status{codes.Internal, "grpc: failed to decompress the received message: " + err.Error()}
	}
	b, err := io.ReadAll(io.LimitReader(z, int64(limit)+1))
	if err != nil {
		return in, &Status{codes.Internal, "grpc: failed to decompress the received message: " + err.Error()}
	}
	if len(b) > limit {
		return in, &Status{codes.ResourceExhausted, fmt.Sprintf("grpc: message after decompression larger than max %d", limit)}
	}
	in.buf.free()
	return incoming{msg: b, buf: &buffer{b: b}, last: in.last}, nil
}
