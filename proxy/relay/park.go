package relay

import (
	"slices"

	"golang.org/x/net/http2"
)

const (
	// maxHeld is how many messages of one direction of a stream may be held in
	// order behind one that waits; past it the stream is not read on.
	maxHeld = 64
	// maxHeldBytes is the same in bytes; what is held then may be more by one
	// message.
	maxHeldBytes = 4 << 20
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

func (e *entry) size() int64 { return int64(len(e.in.msg)) }

// message passes one message through the codec and on. mu is not held.
func (p *Pair) message(s *stream, d Direction, in incoming) {
	if in.flag != 0 {
		var st *Status
		if in, st = p.decompress(s, d, in); st != nil {
			p.mu.Lock()
			p.refuse(s, st)
			p.mu.Unlock()
			return
		}
	}
	h := &s.half[d]
	p.mu.Lock()
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
		in.buf.free()
		return
	}
	if !p.cfg.Budget.park(e.size()) {
		in.buf.free()
		p.refuse(s, tooMuch(d, "etcdseal: too many calls wait for a key"))
		return
	}
	h := &s.half[d]
	h.entries = append(h.entries, e)
	h.parked += e.size()
	if state == entryWaiting {
		p.startWait(s, d, e)
	} else {
		p.advance(s, d)
	}
}

// startWait lets an entry wait on a goroutine of its own. mu is held.
func (p *Pair) startWait(s *stream, d Direction, e *entry) {
	e.state = entryWaiting
	if p.closed {
		return
	}
	ctx := s.waitContext(p.ctx)
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		v := s.codec.Wait(ctx, d, e.in.msg)
		p.mu.Lock()
		if slices.Contains(s.half[d].entries, e) {
			e.verdict, e.state = v, entryJudged
			p.advance(s, d)
		} else { // the stream has ended; stopParked left this to us
			p.cfg.Budget.unpark(e.size())
		}
		p.flushLocked(1 - d)
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
	for e := h.next(); e != nil; e = h.next() {
		if e.state == entryHeld && !p.judge(s, d, e) {
			continue
		}
		h.entries = slices.DeleteFunc(h.entries, func(x *entry) bool { return x == e })
		h.parked -= e.size()
		p.cfg.Budget.unpark(e.size())
		e.in.last = e.in.last && h.endIn && len(h.entries) == 0 && h.state == inputFree && h.asm.have == 0
		p.apply(s, d, e.in, e.verdict, nil)
	}
	h.advancing = false
	if len(h.entries) == 0 {
		h.entries = nil
	}
	p.wake(s, d)
	p.finishInput(s, d)
	p.settle(s)
}

// judge gets the codec's verdict on a held entry whose turn has come, and
// reports whether it may go on. mu is held, but not while the codec works.
func (p *Pair) judge(s *stream, d Direction, e *entry) bool {
	p.mu.Unlock()
	v := s.codec.Rewrite(d, e.in.msg, nil)
	p.mu.Lock()
	if !slices.Contains(s.half[d].entries, e) {
		return false // the stream has ended
	}
	if v.Action == Park {
		p.startWait(s, d, e)
		return false
	}
	e.verdict, e.state = v, entryJudged
	return true
}

// waits reports whether a message is in Codec.Wait.
func (h *half) waits() bool {
	return slices.ContainsFunc(h.entries, func(e *entry) bool { return e.state == entryWaiting })
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
	h := &s.half[d]
	answers := v.Action == Answer || v.Action == Refuse
	if s.gone(d) && !(s.orphan && d == Request && answers) {
		in.buf.free()
		lent.free()
		if s.orphan && d == Request && !s.closed[Request] { // nothing of it was carried out
			p.resetBoth(s, http2.ErrCodeRefusedStream)
		}
		return
	}
	if v.Untouched && d == Request {
		p.stopRewriting(s)
	}
	switch v.Action {
	case Refuse:
		in.buf.free()
		lent.free()
		p.refuse(s, v.Status)
		return
	case Answer:
		in.buf.free()
		lent.free()
		p.reply(s, v.Msg)
		return
	case Drop:
		in.buf.free()
		lent.free()
	default:
		it := messageItem(v.Msg, nil)
		it.end = in.last && d == Request && h.trailers == nil
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

// stopRewriting lets a stream's responses pass as they come, unless some of one
// are here already.
func (p *Pair) stopRewriting(s *stream) {
	h := &s.half[Response]
	if h.state == inputFree && h.asm.have == 0 && len(h.entries) == 0 {
		h.rewriting = false
	}
}

// stopParked ends the waits of a stream and forgets what it held. mu is held.
func (p *Pair) stopParked(s *stream) {
	if s.cancel != nil {
		s.cancel()
	}
	for d := range s.half {
		h := &s.half[d]
		for _, e := range h.entries {
			if e.state != entryWaiting { // else its goroutine has the memory until it ends
				p.cfg.Budget.unpark(e.size())
			}
		}
		h.entries, h.parked = nil, 0
	}
}
