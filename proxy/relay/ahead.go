package relay

// maxRest is how much may be kept back for Eager.Ahead to have it in one piece.
const maxRest = 64 << 10

// ahead is what goes on between an assembler and a codec that begins with a message
// before it is there whole.
type ahead struct {
	codec Eager   // nil when there is none, or when it has had enough
	rest  *buffer // what it has not taken yet
	need  int     // how many bytes of that it waits for
}

// take takes the next bytes of the message.
func (a *assembler) take(d Direction, data []byte) {
	a.came += len(data)
	for a.ahead.codec != nil && len(data) > 0 {
		data = a.offer(data)
	}
	if a.ahead.codec == nil && len(data) > 0 {
		a.grow(d, len(data))
		a.buf.b = append(a.buf.b, data...)
	}
	if a.came == a.size {
		a.stopAhead()
	}
}

// offer lets the codec go on with what it left and data behind it, and returns what
// of data is not cared for yet.
func (a *assembler) offer(data []byte) []byte {
	h := &a.ahead
	if h.rest == nil {
		left := a.pass(data)
		if h.codec != nil && len(left) > 0 {
			h.rest = newBuffer(max(h.need, len(left)))
			h.rest.b = append(h.rest.b, left...)
			left = nil
		}
		return left
	}
	n := min(h.need-len(h.rest.b), len(data))
	h.rest.b = append(h.rest.b, data[:n]...)
	if len(h.rest.b) == h.need {
		rest := h.rest
		h.rest = nil
		if left := a.pass(rest.b); len(left) > 0 {
			rest.b = append(rest.b[:0], left...)
			h.rest = rest
		} else {
			rest.free()
		}
	}
	return data[n:]
}

// pass passes a part to the codec and returns what it has not taken. If that was the
// last that it takes, what is left goes behind what it made.
func (a *assembler) pass(part []byte) []byte {
	h := &a.ahead
	out, used, need := h.codec.Ahead(a.size, a.buf.b, part)
	a.buf.b = out
	left := part[used:]
	if h.need = need; need <= len(left) || need > maxRest {
		h.codec = nil
		a.buf.b = append(a.buf.b, left...)
		return nil
	}
	return left
}

// stopAhead puts what the codec has not taken behind what it made.
func (a *assembler) stopAhead() {
	h := &a.ahead
	if h.rest != nil {
		a.buf.b = append(a.buf.b, h.rest.b...)
		h.rest.free()
	}
	*h = ahead{}
}
