package relay

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/codes"
)

// maxAhead is how much window a sender gets at once for one message.
const maxAhead = 1 << 30

// inputState says who works on what comes in on a rewritten half. Bytes that
// come while it is not inputFree are put into half.raw.
type inputState uint8

const (
	inputFree    inputState = iota
	inputWorking            // a goroutine is in workOn, or about to be
	inputBudget             // the next message waits for its place in the budget
	inputParked             // too much is held or queued; wake goes on with it
)

// assembler puts gRPC messages together out of DATA frames. Whoever has set
// inputWorking uses it.
type assembler struct {
	prefix [messagePrefixSize]byte
	have   uint8 // bytes of prefix
	size   int   // of the message, once the prefix is whole
	late   int   // bytes of it that the sender gets window for as they come
	loose  int64
	came   int     // bytes of it that are in buf, or stand in it for others, or in ahead
	buf    *buffer // nil while the message may be there whole
	place  *reservation
	ahead  ahead
}

// free lets go of the memory.
func (a *assembler) free() {
	a.buf.free()
	a.ahead.rest.free()
}

// room is how much memory to have for a message of which n bytes are there. A
// client's small one gets what it needs as its bytes come, so that announcing a
// message costs nothing; a large one is in the budget, and gets all at once.
func (a *assembler) room(d Direction, n int) int {
	if d == Response || a.size > freeMessage {
		return a.size
	}
	return min(a.size, 4*n)
}

// grow makes room for n bytes more.
func (a *assembler) grow(d Direction, n int) {
	have := a.buf
	if len(have.b)+n <= cap(have.b) {
		return
	}
	a.buf = newBuffer(a.room(d, len(have.b)+n))
	a.buf.b = append(a.buf.b, have.b...)
	have.free()
}

// input takes DATA of a rewritten half. mu is held, but not while working.
func (p *Pair) input(s *stream, d Direction, data []byte) {
	h := &s.half[d]
	if h.state != inputFree {
		if !p.holdLoose(s, d, int64(len(data))) {
			return
		}
		h.raw = append(h.raw, data...)
		return
	}
	h.state = inputWorking
	p.workOn(s, d, data, false)
}

// takeRaw empties half.raw for whoever is to work on it. mu is held.
func (p *Pair) takeRaw(s *stream, d Direction) []byte {
	h := &s.half[d]
	data := h.raw
	h.raw = nil
	p.legs[d].loose -= int64(len(data))
	return data
}

// workOn processes data and then what has come meanwhile. mu is held, but not
// while working. owned says that data belongs to the half.
func (p *Pair) workOn(s *stream, d Direction, data []byte, owned bool) {
	h := &s.half[d]
	for {
		p.mu.Unlock()
		finished := p.process(s, d, data, owned)
		p.mu.Lock()
		if !finished {
			return // somebody else goes on, or has already
		}
		if s.gone(d) {
			h.state = inputFree
			p.clearInput(s, d)
			return
		}
		if len(h.raw) == 0 {
			h.state = inputFree
			p.finishInput(s, d)
			p.settle(s)
			return
		}
		data, owned = p.takeRaw(s, d), true
	}
}

// resume goes on with a half whose message has got its place in the budget.
func (p *Pair) resume(s *stream, d Direction) {
	p.mu.Lock()
	if s.half[d].state != inputBudget || p.closed {
		p.mu.Unlock()
		return
	}
	p.work.Add(1)
	defer p.work.Done()
	s.half[d].state = inputWorking
	if slow := s.half[d].slow; slow != nil {
		slow.Reset(assemblyTime) // its time begins now
	}
	p.workOn(s, d, p.takeRaw(s, d), true)
	p.flushLocked(1 - d)
}

// wake goes on with a half that was parked, when there is room. mu is held.
func (p *Pair) wake(s *stream, d Direction) {
	h := &s.half[d]
	if s.served != nil {
		s.served.wake(d)
	}
	if h.state != inputParked || p.closed || p.full(s, d, 2) {
		return
	}
	h.state = inputWorking
	data := p.takeRaw(s, d)
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		p.mu.Lock()
		p.workOn(s, d, data, true)
		p.flushLocked(1 - d)
	}()
}

// full reports whether a half has too much held or queued to take the next
// message, or, for a share of 2, more than half of that. mu is held.
func (p *Pair) full(s *stream, d Direction, share int64) bool {
	h, out := &s.half[d], p.legs[1-d]
	if out.queued > int64(p.cfg.QueueLimit)/share {
		out.held = true
		return true
	}
	return int64(len(h.entries)) >= maxHeld/share || h.parked >= maxHeldBytes/share || h.queued >= windows[d]/share
}

// clearInput drops what a half has gathered and not passed on. mu is held.
func (p *Pair) clearInput(s *stream, d Direction) {
	h := &s.half[d]
	p.takeRaw(s, d)
	h.trailers = nil
	if h.state == inputWorking {
		return // workOn does it
	}
	h.state = inputFree
	p.cfg.Budget.release(p.detach(s, d))
	h.asm.free()
	h.asm = assembler{}
}

// process cuts data into messages and passes them to the codec. It reports
// false when the rest was put back because something has to be waited for.
func (p *Pair) process(s *stream, d Direction, data []byte, owned bool) (finished bool) {
	a := &s.half[d].asm
	for {
		if a.have < messagePrefixSize {
			n := copy(a.prefix[a.have:], data)
			a.have += uint8(n)
			data = data[n:]
			if a.have < messagePrefixSize {
				return true
			}
			a.size = int(binary.BigEndian.Uint32(a.prefix[1:]))
		}
		if a.buf == nil {
			if ok, wait := p.begin(s, d, data, owned); !ok {
				return !wait
			}
		}
		in := incoming{flag: a.prefix[0]}
		if a.buf == nil { // it is there whole
			in.msg = data[:a.size:a.size]
			data = data[a.size:]
		} else {
			n := min(a.size-a.came, len(data))
			a.take(d, data[:n])
			data = data[n:]
			if a.late > 0 {
				p.payLate(s, d, n)
			}
			if a.came < a.size {
				return true
			}
			in.msg, in.buf = a.buf.b, a.buf
		}
		in.last = len(data) == 0
		var place *reservation
		if a.place != nil || a.loose > 0 {
			p.mu.Lock()
			place = p.detach(s, d)
			p.mu.Unlock()
		}
		*a = assembler{}
		p.message(s, d, in)
		p.cfg.Budget.release(place)
	}
}

// payLate gives the sender of a huge message window as its bytes come.
func (p *Pair) payLate(s *stream, d Direction, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &s.half[d]
	n = min(n, h.asm.late)
	h.asm.late -= n
	h.credit += int64(n)
	p.repayStream(s, d)
}

// begin makes ready for the message whose prefix has come: it checks the size,
// finds memory unless the message is there whole, and gives the sender the
// window for it. Without ok the rest of the data is not to be processed: it
// was put back if wait is set, and is of no use otherwise.
func (p *Pair) begin(s *stream, d Direction, data []byte, owned bool) (ok, wait bool) {
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
	whole := len(data) >= a.size
	switch {
	case p.full(s, d, 1):
		p.putBack(s, d, data, owned, inputParked)
		return false, true
	case a.size > freeMessage && a.place == nil:
		if !p.findPlace(s, d) {
			p.putBack(s, d, data, owned, inputBudget)
			return false, true
		}
	case a.size <= freeMessage && !whole:
		if !p.holdLoose(s, d, int64(a.size)) {
			return false, false
		}
		a.loose = int64(a.size)
	}
	if !whole {
		a.buf = newBuffer(a.room(d, len(data)))
		a.late = max(a.size-maxAhead, 0)
		if d == Response && a.prefix[0] == 0 && len(h.entries) == 0 && !h.advancing {
			a.ahead.codec, _ = s.codec.(Eager)
		}
	}
	h.credit += int64(messagePrefixSize + a.size - a.late)
	p.repayStream(s, d)
	return true, false
}

// putBack keeps data that cannot be processed yet, before what came since. mu
// is held.
func (p *Pair) putBack(s *stream, d Direction, data []byte, owned bool, state inputState) {
	h := &s.half[d]
	h.state = state
	p.legs[d].loose += int64(len(data))
	switch {
	case owned && len(h.raw) == 0:
		h.raw = data
	default:
		h.raw = append(append(make([]byte, 0, len(data)+len(h.raw)), data...), h.raw...)
	}
}

// finishInput passes the end of a direction on when all before it has been.
// mu is held.
func (p *Pair) finishInput(s *stream, d Direction) {
	h := &s.half[d]
	if !h.endIn || h.state != inputFree || len(h.entries) > 0 || h.swallow {
		return
	}
	switch {
	case h.endQueued || h.cut:
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
