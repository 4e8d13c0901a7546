package wire

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// output is a message that is being built of another one.
type output struct {
	b    []byte
	msg  []byte // the other one
	done int32  // of it, everything before is in b or was left out
}

// emit appends the message to dst, which may stand before Msg in its memory: lengths
// and replaced values as measured, everything between them as it is. The values
// that have no New come from fill or open.
func (s *Scan) emit(dst []byte, fill func(dst []byte, i int) []byte, open func(i int) []byte) []byte {
	o, nodes := output{b: dst, msg: s.Msg}, s.nodes
	for i := range s.Values {
		v := &s.Values[i]
		if !v.Replace {
			continue
		}
		value := v.New
		if open != nil {
			value = open(i) // now: what follows writes over the key
			if len(value) != v.length() {
				panic("wire: a value of another length than NewLen")
			}
		}
		for len(nodes) > 0 && nodes[0].place.tag < v.field.tag {
			o.length(&nodes[0].place, nodes[0].grown)
			nodes = nodes[1:]
		}
		o.header(v)
		if value == nil && fill != nil {
			o.b = fill(o.b, i) // also an empty one: it may turn out that it cannot be made
		} else {
			o.b = append(o.b, value...)
		}
	}
	for i := range nodes {
		o.length(&nodes[i].place, nodes[i].grown)
	}
	o.copy(int32(len(o.msg)))
	return o.b
}

// copy copies what is left of msg before the given place.
func (o *output) copy(before int32) {
	o.b = append(o.b, o.msg[o.done:before]...)
	o.done = before
}

// length writes the new length of a field that gets so much longer.
func (o *output) length(p *span, more int) {
	if p.data > 0 {
		o.copy(p.length)
		o.b = protowire.AppendVarint(o.b, uint64(p.size(more)))
		o.done = p.data
	}
}

// header writes everything before the new value.
func (o *output) header(v *Value) {
	p, n, more := &v.field, v.length(), v.grown()
	if p.length == p.tag+1 && more == n-len(v.Old) && v.holder.data > 0 && v.holder.moreLength(more) == 0 {
		// Both lengths take as many bytes as before: one copy, then new numbers.
		o.copy(p.data)
		o.done = p.end
		b := o.b[len(o.b)-int(p.data-v.holder.length):]
		binary.PutUvarint(b, uint64(v.holder.size(more)))
		binary.PutUvarint(b[p.length-v.holder.length:], uint64(n))
		return
	}
	o.length(&v.holder, more)
	o.copy(p.tag)
	o.done = p.end
	if n > 0 {
		o.b = append(o.b, v.tag)
		o.b = protowire.AppendVarint(o.b, uint64(n))
	}
}
