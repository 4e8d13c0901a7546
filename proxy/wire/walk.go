package wire

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// verdict is what the walk says about a message.
type verdict uint8

const (
	plain     verdict = iota // read to the end
	notPlain                 // to be normalised, if it is valid at all
	malformed                // no valid encoding of the message
	tooMany                  // more operations or deeper than is read
)

// err returns the error of a verdict.
func (v verdict) err() error {
	switch v {
	case plain:
		return nil
	case tooMany:
		return ErrTooManyOps
	}
	return ErrMalformed
}

// span is a length-delimited field of the message: where its tag, its length and
// its data begin, and where it ends. No field begins with its data at 0, so the
// zero span is an absent field.
type span struct{ tag, length, data, end int32 }

// frame is what the walk keeps of one message while it reads its fields.
type frame struct {
	num    [numNumbers]uint64
	bytes  [numBytes]span
	seen   uint32 // the singular fields that were there
	prev   bool   // the message is a previous key-value pair
	parent int32  // the node that the message is or stands in, -1 if there is none
	depth  int    // 1 for the outermost message
	place  span   // the field that the message is; the outermost has but an end
}

// node is an embedded message around messages that hold values. Its length changes
// with theirs.
type node struct {
	place  span
	parent int32 // the node around it, -1 for the outermost message
	grown  int   // how much longer its content gets
}

// walk reads the message m at f.place and everything in it.
func (s *Scan) walk(m Message, f *frame) verdict {
	if f.depth > maxDepth {
		return tooMany
	}
	c := &schemas[m]
	msg := s.Msg[:f.place.end]
	for at := int(f.place.data); at < len(msg); {
		tagAt := at
		// Most tags and many lengths take one byte; the call costs more than it.
		tag, at1 := uint64(msg[at]), at+1
		if tag >= 0x80 {
			tag, at1 = varint(msg, at)
		}
		number, wire := tag>>3, protowire.Type(tag&7)
		if at1 < 0 || number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
			return malformed
		}
		fd := c.field(number)
		if !fd.carries(wire) {
			// To the generated code it is an unknown field then.
			if fd.kind != unknown && !s.Normalised {
				return notPlain
			}
			if at = skipField(msg, at1, number, wire); at < 0 {
				return malformed
			}
			continue
		}
		if f.again(fd, number) {
			return notPlain
		}
		if fd.sub == keyValue && fd.many && at1 == tagAt+1 {
			if at = s.pairs(fd, f, tagAt); at > tagAt {
				continue
			}
		}
		var v uint64 // the number, or the length
		var at2 int
		if at1 < len(msg) && msg[at1] < 0x80 {
			v, at2 = uint64(msg[at1]), at1+1
		} else if v, at2 = varint(msg, at1); at2 < 0 {
			return malformed
		}
		if wire == protowire.VarintType {
			if fd.slot != notKept {
				f.num[fd.slot%numNumbers] |= v
			}
			at = at2
			continue
		}
		if v > uint64(len(msg)-at2) {
			return malformed
		}
		at = at2 + int(v)
		if verdict := s.delimited(fd, f, span{int32(tagAt), int32(at1), int32(at2), int32(at)}); verdict != plain {
			return verdict
		}
	}
	return s.finish(c.done, f)
}

// again tells whether a field is there for the second time, or another member of
// its oneof, which is more than the plain form has. It marks the field as seen.
func (f *frame) again(fd *field, number uint64) bool {
	if fd.many {
		return false
	}
	bit := fd.bit(number)
	seen := f.seen&bit != 0
	f.seen |= bit
	return seen
}

// delimited reads a length-delimited field of a message.
func (s *Scan) delimited(fd *field, f *frame, p span) verdict {
	switch fd.kind {
	case bytesof:
		if fd.solid && p.data == p.end {
			return notPlain
		}
	case text:
		if !utf8.Valid(s.Msg[p.data:p.end]) {
			return malformed
		}
	case scalars:
		return packed(s.Msg[p.data:p.end])
	case embedded:
		return s.descend(fd, f, p)
	}
	if fd.slot != notKept {
		f.bytes[fd.slot%numBytes] = p
	}
	return plain
}

// descend reads an embedded message, as a node if it turns out to stand around
// messages that hold values.
func (s *Scan) descend(fd *field, f *frame, p span) verdict {
	if fd.sub == keyValue && s.pair(fd, f, p) {
		return plain
	}
	var child frame // set field by field: a literal would be made aside and copied
	child.place, child.depth, child.parent, child.prev = p, f.depth+1, f.parent, fd.prev
	if !fd.values || schemas[fd.sub].holds {
		return s.walk(fd.sub, &child)
	}
	values, nodes := len(s.Values), len(s.nodes)
	child.parent = int32(nodes)
	s.nodes = append(s.nodes, node{place: p, parent: f.parent})
	verdict := s.walk(fd.sub, &child)
	if len(s.Values) == values {
		s.nodes = s.nodes[:nodes]
	}
	return verdict
}

// carries tells whether the wire type is right for the field.
func (f *field) carries(wire protowire.Type) bool {
	switch wire {
	case protowire.VarintType:
		return f.kind == scalar || f.kind == scalars
	case protowire.BytesType:
		return f.kind >= scalars
	}
	return false
}

// packed checks a packed list of varints.
func packed(b []byte) verdict {
	for at := 0; at < len(b); {
		if _, at = varint(b, at); at < 0 {
			return malformed
		}
	}
	return plain
}

// varint reads the varint at b[at:] and returns it and where it ends, -1 if
// there is none.
func varint(b []byte, at int) (uint64, int) {
	v, n := protowire.ConsumeVarint(b[at:])
	if n < 0 {
		return 0, -1
	}
	return v, at + n
}

// skipField returns where the field whose tag ends at b[at] ends, -1 if it is
// not valid.
func skipField(b []byte, at int, number uint64, wire protowire.Type) int {
	n := protowire.ConsumeFieldValue(protowire.Number(number), wire, b[at:])
	if n < 0 {
		return -1
	}
	return at + n
}
