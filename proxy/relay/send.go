package relay

import (
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// push gives an item to a stream's output: it is framed now when nothing is
// before it and the windows allow, else queued. An item's memory that is not
// its own may be used again as soon as push has returned. Called with mu held.
func (p *Pair) push(s *stream, d Direction, it item) {
	h := &s.half[d]
	if s.closed[1-d] || (h.endQueued && it.kind != itemReset) {
		it.buf.free()
		return
	}
	h.endQueued = h.endQueued || it.end || it.kind == itemReset
	h.headersOut = h.headersOut || it.kind == itemHeaders && !it.info
	l := p.legs[1-d]
	if len(h.queue) == 0 && (it.kind != itemData || l.ready.len() == 0) {
		for p.write(s, d, &it) {
			if it.done() {
				it.buf.free()
				p.settle(s)
				return
			}
		}
	}
	if n := len(h.queue); n > 0 && h.queue[n-1].join(&it) {
		return
	}
	it.keep()
	h.queue = append(h.queue, it)
	h.queued += it.cost
	l.count(&it, 1)
	p.makeReady(s, d)
}

// count adds an item to what is queued towards a leg's peer, or takes it off.
func (l *leg) count(it *item, times int64) {
	l.queued += times * it.cost
	if it.kind != itemData {
		l.listed += times * it.cost
		l.flooded = l.flooded || l.listed > maxListed
	}
}

// makeReady puts a stream into the round of its leg.
func (p *Pair) makeReady(s *stream, d Direction) {
	if h := &s.half[d]; !h.inReady && len(h.queue) > 0 {
		h.inReady = true
		l := p.legs[1-d]
		l.ready.push(s)
		l.ready.tidy(d, len(p.streams))
	}
}

// write frames as much of an item as one frame takes, and reports whether it
// could write anything.
func (p *Pair) write(s *stream, d Direction, it *item) bool {
	h, l := &s.half[d], p.legs[1-d]
	if l.full() && !(d == Request && it.kind == itemHeaders) {
		return false
	}
	before := len(l.room())
	id := s.idOn(1 - d)
	switch it.kind {
	case itemHeaders:
		l.writeHeaders(id, it.fields, it.end)
		h.endOut = h.endOut || it.end
	case itemReset:
		l.reset(id, it.code)
		s.closed[1-d] = true
	default:
		n := it.size()
		if n > 0 {
			n = int(min(int64(n), int64(l.maxFrame), l.sendWindow, h.sendWindow))
			if n <= 0 {
				return false
			}
		}
		p.writeData(s, d, it, n)
	}
	l.relayed += len(l.out.b) - before
	return true
}

// writeData appends one DATA frame with the next n bytes of it.
func (p *Pair) writeData(s *stream, d Direction, it *item, n int) {
	h, l := &s.half[d], p.legs[1-d]
	flags := http2.Flags(0)
	if it.end && n == it.size() {
		flags = http2.FlagDataEndStream
		h.endOut = true
	}
	b := appendFrameHeader(l.room(), n, http2.FrameData, flags, s.idOn(1-d))
	k := min(int(it.left), n)
	if k > 0 {
		from := messagePrefixSize - int(it.left)
		b = append(b, it.prefix[from:from+k]...)
		it.left -= uint8(k)
	}
	data := it.data[:n-k]
	it.data = it.data[n-k:]
	if len(data) < leastLent || it.buf == nil || !l.gathers || l.broken {
		l.put(append(b, data...))
	} else {
		l.put(b)
		l.out.lend(data, it.buf)
	}
	l.sendWindow -= int64(n)
	h.sendWindow -= int64(n)
	if it.repay {
		h.credit += int64(n)
		p.repayStream(s, d)
	}
}

// repayStream gives the sender of direction d its stream's window back.
func (p *Pair) repayStream(s *stream, d Direction) {
	h := &s.half[d]
	if h.credit < windows[d]/4 || h.endIn || s.closed[d] {
		return
	}
	src := p.legs[d]
	src.control(appendWindowUpdate(src.room(), s.idOn(d), h.credit))
	h.recvWindow += h.credit
	h.credit = 0
}

// pump moves queued output of direction d to its leg, a frame a stream in
// turn, until the leg has enough or no stream may go on. mu is held.
func (p *Pair) pump(d Direction) {
	l := p.legs[1-d]
	for l.ready.len() > 0 && !l.full() {
		s := l.ready.pop()
		s.half[d].inReady = false
		p.turn(s, d)
	}
	if l.held && l.queued <= int64(p.cfg.QueueLimit)/2 {
		l.held = false
		for _, s := range p.streams {
			p.wake(s, d)
		}
	}
	p.legs[d].repay(p.withheld(d))
}

// turn lets a stream write a frame.
func (p *Pair) turn(s *stream, d Direction) {
	h, l := &s.half[d], p.legs[1-d]
	if len(h.queue) == 0 {
		return
	}
	it := &h.queue[0]
	if !p.write(s, d, it) {
		if l.sendWindow <= 0 {
			h.inReady = true
			l.starved.push(s)
			l.starved.tidy(d, len(p.streams))
		}
		return // else the stream's own WINDOW_UPDATE makes it ready
	}
	if it.done() {
		p.dequeue(s, d)
		p.wake(s, d)
		p.settle(s)
	}
	p.makeReady(s, d)
}

// feed puts the streams that waited for a leg's window into its round.
func (l *leg) feed() {
	for l.sendWindow > 0 && l.starved.len() > 0 {
		l.ready.push(l.starved.pop())
	}
}

// dequeue takes the first item off a queue.
func (p *Pair) dequeue(s *stream, d Direction) {
	h := &s.half[d]
	it := &h.queue[0]
	h.queued -= it.cost
	p.legs[1-d].count(it, -1)
	it.buf.free()
	*it = item{}
	if h.queue = h.queue[1:]; len(h.queue) == 0 {
		h.queue = nil
	}
}

// discard drops what a stream has queued in direction d.
func (p *Pair) discard(s *stream, d Direction) {
	for h := &s.half[d]; len(h.queue) > 0; {
		p.dequeue(s, d)
	}
}

// withheld reports whether the sender of direction d gets no more window for
// its connection, since too much is queued towards the other peer. Messages
// that have a place in the budget are let in all the same: others wait for it.
func (p *Pair) withheld(d Direction) bool {
	return p.legs[1-d].queued > int64(p.cfg.QueueLimit) && p.legs[d].assembling == 0
}

// answer ends a stream with the proxy's own answer: upstream it is reset and
// what still comes is swallowed; the client gets the items after what it was
// sent already.
func (p *Pair) answer(s *stream, code codes.Code, items ...item) {
	s.code = int(code)
	p.answeredID = max(p.answeredID, s.id)
	p.resetUpstream(s, http2.ErrCodeCancel)
	p.stopParked(s)
	for d := range s.half {
		s.half[d].swallow = true
		p.clearInput(s, Direction(d))
	}
	for _, it := range items {
		p.push(s, Response, it)
	}
	if !s.half[Request].endIn {
		p.push(s, Response, item{kind: itemReset, code: http2.ErrCodeNo})
	}
	p.settle(s)
}

// answered reports whether a stream has, or can get, no other answer any more.
func (s *stream) answered() bool { return s.closed[Request] || s.half[Response].endQueued }

// refuse answers a stream with a gRPC status and no message.
func (p *Pair) refuse(s *stream, st *Status) {
	if s.answered() {
		return
	}
	fields := st.trailers()
	if !s.half[Response].headersOut {
		fields = append(slices.Clone(grpcHeaders), fields...)
	}
	p.answer(s, st.Code, item{kind: itemHeaders, fields: fields, end: true})
}

// reply answers a stream with one message, which it takes over.
func (p *Pair) reply(s *stream, msg []byte) {
	if s.answered() {
		return
	}
	items := []item{
		{kind: itemHeaders, fields: grpcHeaders},
		messageItem(msg, &buffer{b: msg}),
		{kind: itemHeaders, fields: (&Status{}).trailers(), end: true},
	}
	if s.half[Response].headersOut {
		items = items[1:]
	}
	p.answer(s, codes.OK, items...)
}

// grpcHeaders begin an answer of the proxy's own. Nobody changes them.
var grpcHeaders = []hpack.HeaderField{
	{Name: ":status", Value: "200"},
	{Name: "content-type", Value: "application/grpc"},
}

// resetUpstream ends the upstream stream, if it was opened and is not over.
func (p *Pair) resetUpstream(s *stream, code http2.ErrCode) {
	p.discard(s, Request)
	if !s.forwarded || s.closed[Response] {
		return
	}
	if !(s.half[Request].endOut && s.half[Response].endIn) {
		p.legs[Response].reset(s.upstreamID(), code)
	}
	s.closed[Response] = true
}

// resetBoth ends a stream on both legs with a code.
func (p *Pair) resetBoth(s *stream, code http2.ErrCode) {
	if !s.closed[Request] {
		p.legs[Request].reset(s.id, code)
	}
	if s.forwarded && !s.closed[Response] {
		p.legs[Response].reset(s.upstreamID(), code)
	}
	p.drop(s)
}

// settle forgets a stream that both peers are done with.
func (p *Pair) settle(s *stream) {
	req, resp := &s.half[Request], &s.half[Response]
	clientDone := s.closed[Request] || (req.endIn && resp.endOut && len(resp.queue) == 0)
	upstreamDone := !s.forwarded || s.closed[Response] || (req.endOut && resp.endIn && len(req.queue) == 0)
	if clientDone && upstreamDone && p.streams[s.id] == s {
		p.drop(s)
	}
}

// drop takes a stream out of the pair and lets go of what it holds.
func (p *Pair) drop(s *stream) {
	delete(p.streams, s.id)
	for d := range p.recent {
		if p.recent[d] == s {
			p.recent[d] = nil
		}
	}
	if !s.half[Request].endIn {
		p.left.add(s.id)
	}
	if s.forwarded {
		p.opened--
	}
	s.closed = [2]bool{true, true}
	p.stopParked(s)
	for d := range s.half {
		p.discard(s, Direction(d))
		p.clearInput(s, Direction(d))
	}
	p.observeEnd(s)
}
