package wire

import (
	"math/rand/v2"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// randomWire writes a random encoding of a message: its fields in any order,
// with values that compare, keys that repeat and lengths around the places where
// a varint grows. odd is the share, in per cent, of fields that are not in the
// plain form: given twice, of a wrong wire type, unknown, empty, long varints.
func randomWire(r *rand.Rand, md protoreflect.MessageDescriptor, depth, odd int) []byte {
	var fields [][]byte
	oneofs := map[protoreflect.Name]bool{}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		times := r.IntN(2)
		if fd.IsList() {
			times = r.IntN(4)
		}
		if o := fd.ContainingOneof(); o != nil {
			if oneofs[o.Name()] && r.IntN(100) >= odd {
				continue
			}
			oneofs[o.Name()] = oneofs[o.Name()] || times > 0
		} else if r.IntN(100) < odd {
			times++
		}
		for range times {
			fields = append(fields, randomField(r, fd, depth, odd))
		}
	}
	if r.IntN(200) < odd {
		fields = append(fields, unknownField(r))
	}
	r.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	var b []byte
	for _, f := range fields {
		b = append(b, f...)
	}
	return b
}

// randomField writes one field.
func randomField(r *rand.Rand, fd protoreflect.FieldDescriptor, depth, odd int) []byte {
	n := fd.Number()
	if r.IntN(400) < odd {
		return retyped(r, n)
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		var sub []byte
		if depth > 0 {
			sub = randomWire(r, fd.Message(), depth-1, odd)
		}
		return delimited(r, n, sub, odd)
	case protoreflect.BytesKind, protoreflect.StringKind:
		return delimited(r, n, randomBytes(r, odd), odd)
	}
	if fd.IsList() && r.IntN(2) == 0 {
		return delimited(r, n, []byte{0, 1, 0x81, 0}, odd)
	}
	v := r.Uint64() >> r.IntN(64)
	if fd.Enum() != nil || fd.Kind() == protoreflect.BoolKind {
		v = r.Uint64N(6)
	}
	if r.IntN(100) < odd {
		v |= 1 << 40 // more than an enumeration can hold
	}
	return longVarints(r, protowire.AppendVarint(nil, protowire.EncodeTag(n, protowire.VarintType)), v, odd)
}

// delimited writes a length-delimited field.
func delimited(r *rand.Rand, n protowire.Number, data []byte, odd int) []byte {
	tag := protowire.AppendVarint(nil, protowire.EncodeTag(n, protowire.BytesType))
	return append(longVarints(r, tag, uint64(len(data)), odd), data...)
}

// longVarints appends a number to a tag, either of which may get a longer
// encoding than it needs.
func longVarints(r *rand.Rand, tag []byte, v uint64, odd int) []byte {
	if r.IntN(300) < odd {
		tag[len(tag)-1] |= 0x80
		tag = append(tag, 0x80, 0)
	}
	tag = protowire.AppendVarint(tag, v)
	if r.IntN(300) < odd && v < 1<<56 {
		tag[len(tag)-1] |= 0x80
		tag = append(tag, 0)
	}
	return tag
}

// retyped writes a field with any wire type.
func retyped(r *rand.Rand, n protowire.Number) []byte {
	switch r.IntN(5) {
	case 0:
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), 7)
	case 1:
		return protowire.AppendFixed32(protowire.AppendTag(nil, n, protowire.Fixed32Type), 7)
	case 2:
		return protowire.AppendFixed64(protowire.AppendTag(nil, n, protowire.Fixed64Type), 7)
	case 3:
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), nil)
	}
	group := protowire.AppendTag(nil, n, protowire.StartGroupType)
	group = append(group, 0x08, 0x01)
	return protowire.AppendTag(group, n, protowire.EndGroupType)
}

// unknownField writes a field that no message of etcd has.
func unknownField(r *rand.Rand) []byte {
	return retyped(r, protowire.Number([]int{14, 15, 16, 32, 63, 65, 96, 1000, 1 << 20, 1<<29 - 1}[r.IntN(10)]))
}

// randomBytes makes a key, a value or a text.
func randomBytes(r *rand.Rand, odd int) []byte {
	if r.IntN(100) < odd {
		return nil
	}
	n := []int{1, 1, 2, 3, 5, 8, 40, 79, 80, 81, 126, 127, 128, 129, 130, 180}[r.IntN(16)]
	if r.IntN(60) == 0 {
		n = []int{16380, 16383, 16384, 16390, 16440}[r.IntN(5)]
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = "ab/c0\x00"[r.IntN(6)]
	}
	return b
}
