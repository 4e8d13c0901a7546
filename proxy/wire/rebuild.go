package wire

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Size returns the length of the message with the values replaced, in bytes.
func (s *Scan) Size() int {
	grown, _ := s.measure()
	return len(s.Msg) + grown
}

// Append appends the message with the values replaced to dst and returns the
// extended slice. It allocates at most once. dst must not overlap the message.
func (s *Scan) Append(dst []byte) []byte {
	grown, changed := s.measure()
	dst = slices.Grow(dst, len(s.Msg)+grown)
	if !changed {
		return append(dst, s.Msg...)
	}
	return s.emit(dst)
}

// AppendFunc is Append for values that are made where they will stand: for each
// value i that is to be replaced and has no New, fill appends exactly NewLen bytes
// to dst, which has the capacity, and returns it.
func (s *Scan) AppendFunc(dst []byte, fill func(dst []byte, i int) []byte) []byte {
	s.fill = fill
	defer func() { s.fill = nil }()
	return s.Append(dst)
}

// InPlaceFunc is InPlace for values that are made on the way: for each value i that
// is to be replaced, open is called in the order of the values and returns the new
// one, a part of Old and NewLen bytes long. Until then Key and Old are as they were.
// The message is appended to dst, which is nil or stands, in the same memory,
// anywhere before Msg.
func (s *Scan) InPlaceFunc(dst []byte, open func(i int) []byte) []byte {
	_, changed := s.measure()
	if dst == nil {
		dst = s.Msg[:0]
	}
	if !changed {
		return append(dst, s.Msg...)
	}
	s.open = open
	defer func() { s.open = nil }()
	return s.emit(dst)
}

// InPlace builds the message with the values replaced in the memory of Msg and
// returns it. It does not allocate unless a new value is longer than the old
// one; then the result is a new slice. The Scan is of no more use: Msg and the
// slices in Values have been overwritten.
func (s *Scan) InPlace() []byte {
	_, changed := s.measure()
	if !changed {
		return s.Msg
	}
	for i := range s.Values {
		if v := &s.Values[i]; v.Replace && v.length() > len(v.Old) {
			return s.Append(nil)
		}
	}
	// No field gets longer, no length takes more bytes: what is written never
	// overtakes what is read.
	return s.emit(s.Msg[:0])
}

// measure computes how much longer the message and each node get. changed is
// false if no value is replaced.
func (s *Scan) measure() (grown int, changed bool) {
	for i := range s.nodes {
		s.nodes[i].grown = 0
	}
	for i := range s.Values {
		v := &s.Values[i]
		if !v.Replace {
			continue
		}
		changed = true
		more := v.size() - (v.end - v.at)
		if v.parent < 0 {
			grown += more
		} else {
			s.nodes[v.parent].grown += more
		}
	}
	if !changed {
		return 0, false
	}
	// A node stands before the nodes in it.
	for i := len(s.nodes) - 1; i >= 0; i-- {
		n := &s.nodes[i]
		more := n.grown + protowire.SizeVarint(uint64(n.size())) - (n.start - n.lenAt)
		if n.parent < 0 {
			grown += more
		} else {
			s.nodes[n.parent].grown += more
		}
	}
	return grown, true
}

// size returns the length of the node's content after the replacement.
func (n *node) size() int { return n.end - n.start + n.grown }

// size returns the length of the whole field after the replacement. An empty
// value has no field, as in any canonical encoding.
func (v *Value) size() int {
	if v.length() == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(v.length())
}

// length returns the length of the new value.
func (v *Value) length() int {
	if v.New == nil {
		return v.NewLen
	}
	return len(v.New)
}

// emit appends the message to dst, which may be Msg[:0]: lengths of nodes and
// replaced values as measured, everything between them as it is.
func (s *Scan) emit(dst []byte) []byte {
	done, nodes := 0, s.nodes
	for i := range s.Values {
		v := &s.Values[i]
		if !v.Replace {
			continue
		}
		if s.open != nil {
			// What follows writes over the key.
			v.New = s.open(i)
		}
		dst, done, nodes = s.emitNodes(dst, done, nodes, v.at)
		dst = append(dst, s.Msg[done:v.at]...)
		done = v.end
		if n := v.length(); n > 0 {
			dst = append(dst, v.tag)
			dst = protowire.AppendVarint(dst, uint64(n))
		}
		if v.New == nil && s.fill != nil {
			dst = s.fill(dst, i) // an empty value, too: it may turn out not to be one
		} else {
			dst = append(dst, v.New...)
		}
	}
	dst, done, _ = s.emitNodes(dst, done, nodes, len(s.Msg))
	return append(dst, s.Msg[done:]...)
}

// emitNodes writes the new lengths of the nodes that begin before the given
// place, and what stands before them. It returns the nodes that are left.
func (s *Scan) emitNodes(dst []byte, done int, nodes []node, before int) ([]byte, int, []node) {
	for len(nodes) > 0 && nodes[0].lenAt < before {
		n := &nodes[0]
		dst = append(dst, s.Msg[done:n.lenAt]...)
		dst = protowire.AppendVarint(dst, uint64(n.size()))
		done, nodes = n.start, nodes[1:]
	}
	return dst, done, nodes
}
