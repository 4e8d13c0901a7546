package wire

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Size returns the length of the message with the values replaced, in bytes.
func (s *Scan) Size() int {
	return len(s.Msg) + s.measure()
}

// Append appends the message with the values replaced to dst and returns the
// extended slice. It allocates at most once. dst must not overlap the message.
func (s *Scan) Append(dst []byte) []byte { return s.AppendFunc(dst, nil) }

// AppendFunc is Append for values that are made where they will stand: for each
// value i that is to be replaced and has no New, fill appends exactly NewLen bytes
// to dst, which has the capacity, and returns it.
func (s *Scan) AppendFunc(dst []byte, fill func(dst []byte, i int) []byte) []byte {
	dst = slices.Grow(dst, s.Size())
	if !s.changed() {
		return append(dst, s.Msg...)
	}
	return s.emit(dst, fill, nil)
}

// InPlaceFunc is InPlace for values that are made on the way: for each value i that
// is to be replaced, open is called in the order of the values and returns the new
// one, a part of Old and NewLen bytes long. Until then Key and Old are as they were.
// The message is appended to dst, which is nil or stands, in the same memory,
// anywhere before Msg.
func (s *Scan) InPlaceFunc(dst []byte, open func(i int) []byte) []byte {
	if dst == nil {
		dst = s.Msg[:0]
	}
	if !s.changed() {
		return join(dst, s.Msg)
	}
	if len(s.nodes) > 0 {
		s.measure()
	}
	return s.emit(dst, nil, open)
}

// join is append, without a copy if the bytes stand there already.
func join(dst, b []byte) []byte {
	n := len(dst) + len(b)
	if len(b) > 0 && n <= cap(dst) && &dst[:n][len(dst)] == &b[0] {
		return dst[:n]
	}
	return append(dst, b...)
}

// InPlace builds the message with the values replaced in the memory of Msg and
// returns it. It does not allocate unless a new value is longer than the old
// one; then the result is a new slice. The Scan is of no more use: Msg and the
// slices in Values have been overwritten.
func (s *Scan) InPlace() []byte {
	if !s.changed() {
		return s.Msg
	}
	s.measure()
	for i := range s.Values {
		if v := &s.Values[i]; v.Replace && v.length() > len(v.Old) {
			return s.Append(nil)
		}
	}
	// No field gets longer, no length takes more bytes: what is written never
	// overtakes what is read.
	return s.emit(s.Msg[:0], nil, nil)
}

// changed tells whether any value is replaced.
func (s *Scan) changed() bool {
	for i := range s.Values {
		if s.Values[i].Replace {
			return true
		}
	}
	return false
}

// measure computes how much longer the message and each node get.
func (s *Scan) measure() (grown int) {
	if !s.changed() {
		return 0
	}
	for i := range s.nodes {
		s.nodes[i].grown = 0
	}
	for i := range s.Values {
		v := &s.Values[i]
		if !v.Replace {
			continue
		}
		more := v.grown()
		s.grow(v.parent, more+v.holder.moreLength(more), &grown)
	}
	// A node stands before the nodes in it.
	for i := len(s.nodes) - 1; i >= 0; i-- {
		n := &s.nodes[i]
		s.grow(n.parent, n.grown+n.place.moreLength(n.grown), &grown)
	}
	return grown
}

// grow adds to how much longer a node gets, or the message itself.
func (s *Scan) grow(node int32, more int, message *int) {
	if node >= 0 {
		message = &s.nodes[node].grown
	}
	*message += more
}

// size returns the length of the data when it is so much longer.
func (p *span) size(more int) int { return int(p.end-p.data) + more }

// moreLength returns how many bytes more the field's length takes when its data is
// so much longer. The outermost message has no length.
func (p *span) moreLength(more int) int {
	if p.data == 0 {
		return 0
	}
	return protowire.SizeVarint(uint64(p.size(more))) - int(p.data-p.length)
}

// grown returns how much longer the value's field gets. An empty value has no
// field, as in any canonical encoding.
func (v *Value) grown() int {
	before := int(v.field.end - v.field.tag)
	if n := v.length(); n > 0 {
		return 1 + protowire.SizeBytes(n) - before
	}
	return -before
}

// length returns the length of the new value.
func (v *Value) length() int {
	if v.New == nil {
		return v.NewLen
	}
	return len(v.New)
}
