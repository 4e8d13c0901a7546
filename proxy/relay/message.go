package relay

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/codes"
)

// maxParked is how many messages of one direction of a stream may be held in
// order behind one that waits; past it the stream is not read on.
const maxParked = 64

// inputState says who works on what comes in on a rewritten half. Bytes that
// come while it is not inputFree are put into half.raw.
type inputState uint8

const (
	inputFree    inputState = iota
	inputWorking            // a goroutine is in process
	inputBudget             // the next message waits for its place in the budget
	inputParked             // too much is parked; advance goes on with it
)

// assembler puts gRPC messages together out of DATA frames. Whoever has set
// inputWorking uses it.
type assembler struct {
	prefix [messagePrefixSize]byte
	have   int // bytes of prefix
	size   int // of the message, once the prefix is whole
	buf    *buffer
	place  *reservation
}

// gone reports whether what still comes in direction d is of no use.
func (s *stream) gone(d Direction) bool { return s.half[d].swallow || s.closed[1-d] }

// input takes DATA of a rewritten half. mu is held, but not while working.
func (p *Pair) input(s *stream, d Direction, data []byte) {
	h := &s.half[d]
	if h.state != inputFree {
		h.raw = append(h.raw, data...)
		return
	}
	h.state = inputWorking
	p.workOn(s, d, data)
}

// workOn processes data and then what has come meanwhile. mu is held, but not
// while working.
func (p *Pair) workOn(s *stream, d Direction, data []byte) {
	h := &s.half[d]
	for {
		p.mu.Unlock()
		finished := p.process(s, d, data)
		p.mu.Lock()
		if !finished {
			return // somebody else goes on, or has already
		}
		if s.gone(d) {
			h.state = inputFree
			p.clearInput(h)
			return
		}
		if len(h.raw) == 0 {
			h.state = inputFree
			p.finishInput(s, d)
			return
		}
		data, h.raw = h.raw, nil
	}
}

// resume goes on with a half that waited for the given reason.
func (p *Pair) resume(s *stream, d Direction, reason inputState) {
	p.mu.Lock()
	defer p.flush()
	defer p.mu.Unlock()
	h := &s.half[d]
	if h.state != reason {
		return
	}
	data := h.raw
	h.raw, h.state = nil, inputWorking
	p.workOn(s, d, data)
}

// clearInput drops what a half has gathered and not passed on. mu is held.
func (p *Pair) clearInput(h *half) {
	h.raw, h.trailers = nil, nil
	if h.state == inputWorking {
		return // workOn does it
	}
	h.state = inputFree
	p.cfg.Budget.release(h.asm.place)
	h.asm.buf.free()
	h.asm = assembler{}
}

// process cuts data into messages and passes them to the codec. It reports
// false when the rest was put back because something has to be waited for.
func (p *Pair) process(s *stream, d Direction, data []byte) (finished bool) {
	a := &s.half[d].asm
	for {
		if a.have < messagePrefixSize {
			n := copy(a.prefix[a.have:], data)
			a.have += n
			data = data[n:]
			if a.have < messagePrefixSize {
				return true
			}
			a.size = int(binary.BigEndian.Uint32(a.prefix[1:]))
		}
		if a.buf == nil {
			whole := len(data) >= a.size
			if ok, wait := p.begin(s, d, data, whole); !ok {
				return !wait
			}
			if whole {
				msg := data[:a.size]
				data = data[a.size:]
				flag, place := a.prefix[0], a.place
				*a = assembler{}
				p.message(s, d, incoming{flag: flag, msg: msg, last: len(data) == 0})
				p.cfg.Budget.release(place)
				continue
			}
		}
		n := min(a.size-len(a.buf.b), len(data))
		a.buf.b = append(a.buf.b, data[:n]...)
		data = data[n:]
		if len(a.buf.b) < a.size {
			return true
		}
		in := incoming{flag: a.prefix[0], msg: a.buf.b, buf: a.buf, last: len(data) == 0}
		place := a.place
		*a = assembler{}
		p.message(s, d, in)
		p.cfg.Budget.release(place)
	}
}

// begin makes ready for the message whose prefix has come: it checks the size,
// finds memory unless the message is there whole, and gives the sender the
// window for it. Without ok the rest of the data is not to be processed: it
// was put back if wait is set, and is of no use otherwise.
func (p *Pair) begin(s *stream, d Direction, data []byte, whole bool) (ok, wait bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &s.half[d]
	a := &h.asm
	if s.gone(d) {
		return false, false
	}
	if limit := s.limit(d); a.size > limit {
		p.refuse(s, &Status{codes.ResourceExhausted, fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", a.size, limit)})
		return false, false
	}
	if len(h.entries) >= maxParked {
		h.state = inputParked
		h.raw = append(append([]byte(nil), data...), h.raw...)
		return false, true
	}
	if a.size > freeMessage && a.place == nil {
		place, now := p.cfg.Budget.reserve(int64(a.size), func() { p.resume(s, d, inputBudget) })
		a.place = place
		if !now {
			h.state = inputBudget
			h.raw = append(append([]byte(nil), data...), h.raw...)
			return false, true
		}
	}
	if !whole {
		a.buf = newBuffer(a.size)
	}
	h.credit += int64(messagePrefixSize + a.size)
	p.repayStream(s, d)
	return true, false
}

// limit is the largest message that a stream may carry in a direction.
func (s *stream) limit(d Direction) int {
	if d == Request && s.max > 0 {
		return s.max
	}
	return maxWindow
}

// finishInput passes the end of a direction on when all before it has been.
// mu is held.
func (p *Pair) finishInput(s *stream, d Direction) {
	h := &s.half[d]
	if !h.endIn || h.state != inputFree || len(h.entries) > 0 || h.swallow {
		return
	}
	switch {
	case h.endQueued:
	case d == Request && h.asm.have > 0:
		// A message that was cut off gets the upstream's own error, without its
		// bytes.
		rest := append([]byte(nil), h.asm.prefix[:h.asm.have]...)
		p.push(s, d, item{kind: itemData, data: rest, end: true})
	case h.trailers != nil:
		p.push(s, d, item{kind: itemHeaders, fields: h.trailers, end: true})
	default:
		p.push(s, d, item{kind: itemData, end: true})
	}
	if h.resetIn {
		h.resetIn = false
		p.push(s, d, item{kind: itemReset, code: 0})
	}
}
