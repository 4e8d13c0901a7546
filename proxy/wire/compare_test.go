package wire

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
)

// compareScan checks everything that Parse says of a message, and what becomes
// of it by a change, against the generated code. It reports whether the message
// is valid.
func compareScan(t *testing.T, s *Scan, m Message, msg []byte, f change) bool {
	t.Helper()
	want := generated(m)
	refused := proto.Unmarshal(msg, want)
	before := bytes.Clone(msg)
	err := s.Parse(m, msg)
	if most := mostParts(len(msg)); errors.Is(err, ErrTooManyOps) && count(m, msg, most, 1) > most {
		return false
	}
	if (err != nil) != (refused != nil) {
		t.Fatalf("Parse(%s, %x) = %v, generated code says %v", m, msg, err, refused)
	}
	if !bytes.Equal(msg, before) {
		t.Fatalf("Parse(%s, %x) changed the message", m, before)
	}
	if err != nil {
		return false
	}
	sameMeaning(t, m, s.Msg, want)
	compareOps(t, s, want)
	wantHeader, has := headerOf(want)
	if s.Header != wantHeader || s.HasHeader != has {
		t.Errorf("%s %x: header %v %v, want %v %v", m, msg, s.Header, s.HasHeader, wantHeader, has)
	}
	if diff := cmp.Diff(watchOf(want), s.Watch, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s %x: watch (-want +got):\n%s", m, msg, diff)
	}
	canonical := bytes.Equal(msg, marshal(t, want))
	changeAll(want, f)
	for i := range s.Values {
		v := &s.Values[i]
		if !keepsValue(s, i) {
			v.New, v.Replace = f(v.Key, v.Old)
		}
		// A new field goes to the end of its message.
		canonical = canonical && (!v.Replace || v.field.tag < v.field.end)
	}
	size := s.Size()
	out := s.Append([]byte("before"))
	if len(out) != len("before")+size || !bytes.HasPrefix(out, []byte("before")) {
		t.Fatalf("%s %x: Append made %d bytes, Size said %d", m, msg, len(out)-len("before"), size)
	}
	sameMeaning(t, m, out[len("before"):], want)
	if w := marshal(t, want); canonical && !bytes.Equal(out[len("before"):], w) {
		t.Fatalf("%s %x: made %x, generated code makes %x", m, msg, out[len("before"):], w)
	}
	openInPlace(t, m, before, f, out[len("before"):])
	in := s.InPlace()
	if !bytes.Equal(in, out[len("before"):]) {
		t.Fatalf("%s %x: InPlace made %x, Append %x", m, before, in, out[len("before"):])
	}
	return true
}

// openInPlace checks what InPlaceFunc makes of a message, if no value gets longer.
func openInPlace(t *testing.T, m Message, msg []byte, f change, want []byte) {
	t.Helper()
	s := parse(t, m, bytes.Clone(msg))
	made := make([][]byte, len(s.Values))
	for i := range s.Values {
		v := &s.Values[i]
		if keepsValue(s, i) {
			continue
		}
		if made[i], v.Replace = f(v.Key, v.Old); len(made[i]) > len(v.Old) {
			return
		}
		v.NewLen = len(made[i])
	}
	if got := s.InPlaceFunc(nil, func(i int) []byte { return made[i] }); !bytes.Equal(got, want) {
		t.Fatalf("%s %x: InPlaceFunc made %x, Append %x", m, msg, got, want)
	}
}

// keepsValue tells whether a value belongs to a Put with ignore_value.
func keepsValue(s *Scan, value int) bool {
	return slices.ContainsFunc(s.Ops, func(op Op) bool { return op.Value == value && op.IgnoreValue })
}

// compareOps compares the operations, in any order: the generated code does not
// tell in which order the parts of a Txn stood on the wire.
func compareOps(t *testing.T, s *Scan, p proto.Message) {
	t.Helper()
	got, want := map[flatOp]int{}, map[flatOp]int{}
	for _, op := range s.Ops {
		put := ""
		if op.Value >= 0 {
			v := s.Values[op.Value]
			put, op.Value = string(v.Old), 0
			if !bytes.Equal(v.Key, op.Key) && v.Key != nil {
				t.Errorf("value of key %q belongs to an operation on %q", v.Key, op.Key)
			}
		}
		got[flat(op, put)]++
	}
	for _, op := range opsOf(p, 0) {
		want[flat(op.Op, op.Put)]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("operations (-want +got):\n%s", cmp.Diff(want, got))
	}
}

// flatOp is a putOp that can be compared by ==.
type flatOp struct {
	Op                             string // all fields but the slices
	Key, End, Name, Operand, Value string
}

func flat(op Op, put string) flatOp {
	f := flatOp{Key: string(op.Key), End: string(op.End), Name: string(op.Name), Operand: string(op.Operand), Value: put}
	op.Key, op.End, op.Name, op.Operand = nil, nil, nil, nil
	f.Op = fmt.Sprintf("%+v", op)
	return f
}

// sameMeaning checks that bytes decode to the wanted message.
func sameMeaning(t *testing.T, m Message, b []byte, want proto.Message) {
	t.Helper()
	got := generated(m)
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatalf("%s %x: %v", m, b, err)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("%s %x\n got %v\nwant %v", m, b, got, want)
	}
}
