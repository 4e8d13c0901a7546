package wire

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var changes = []change{grow, shrink, mixed}

// FuzzScan compares the walker with the generated code on any bytes as any
// message. Seeds are frozen in testdata/fuzz/FuzzScan.
func FuzzScan(f *testing.F) {
	f.Fuzz(func(t *testing.T, m, how byte, msg []byte) {
		message := RangeRequest + Message(m)%(header-RangeRequest)
		compareScan(t, new(Scan), message, msg, changes[int(how)%len(changes)])
	})
}

// FuzzRandom compares the walker with the generated code on encodings that are
// made from the descriptors: valid, whatever the order and number of fields, and
// with some of their bytes changed, valid or not.
func FuzzRandom(f *testing.F) {
	for m := RangeRequest; m < header; m++ {
		f.Add(uint64(m), byte(m), byte(10))
	}
	f.Fuzz(func(t *testing.T, seed uint64, m, odd byte) {
		message := RangeRequest + Message(m)%(header-RangeRequest)
		r := newRand(seed)
		msg := randomWire(r, generated(message).ProtoReflect().Descriptor(), 6, int(odd%60))
		compareScan(t, new(Scan), message, slices.Clone(msg), changes[r.IntN(len(changes))])
		for range min(len(msg), 8) {
			msg[r.IntN(len(msg))] ^= byte(1 << r.IntN(8))
			compareScan(t, new(Scan), message, slices.Clone(msg), changes[r.IntN(len(changes))])
		}
	})
}

// TestRandomMessages is FuzzRandom for a run without fuzzing, with one Scan for
// all messages, as a proxy uses it.
func TestRandomMessages(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	s := new(Scan)
	normalised := 0
	for m := RangeRequest; m < header; m++ {
		md := generated(m).ProtoReflect().Descriptor()
		for i := range rounds {
			r := newRand(uint64(i)<<8 | uint64(m))
			odd := []int{0, 2, 10, 40}[i%4]
			msg := randomWire(r, md, 6, odd)
			if !compareScan(t, s, m, msg, changes[i%len(changes)]) {
				t.Fatalf("%s %x: valid message refused by both", m, msg)
			}
			if s.Normalised {
				normalised++
			}
			// Cut off or with a byte changed it may be valid or not.
			if len(msg) > 0 {
				compareScan(t, s, m, msg[:r.IntN(len(msg))], shrink)
				msg[r.IntN(len(msg))] ^= byte(1 << r.IntN(8))
				compareScan(t, s, m, msg, grow)
			}
		}
	}
	if normalised == 0 {
		t.Error("no message took the slow path")
	}
}

// TestCanonicalIsPlain checks that what generated code writes never takes the
// slow path.
func TestCanonicalIsPlain(t *testing.T) {
	s := new(Scan)
	for m := RangeRequest; m < header; m++ {
		p := generated(m)
		for i := range uint64(200) {
			if err := proto.Unmarshal(randomWire(newRand(i), p.ProtoReflect().Descriptor(), 6, 0), p); err != nil {
				t.Fatal(err)
			}
			msg, err := proto.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := count(m, msg, MaxOps, 1), parts(p.ProtoReflect()); got != want {
				t.Fatalf("%s %x: %d parts, want %d", m, msg, got, want)
			}
			compareScan(t, s, m, msg, changes[i%3])
			if s.Normalised {
				t.Fatalf("%s %x: the slow path was taken", m, msg)
			}
		}
	}
}

// parts counts the messages in a message of generated code.
func parts(p protoreflect.Message) (n int) {
	p.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				n += 1 + parts(v.List().Get(i).Message())
			}
		default:
			n += 1 + parts(v.Message())
		}
		return true
	})
	return n
}
