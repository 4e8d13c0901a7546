package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// comparePair reads a key-value pair, which stands between other bytes, by pair
// and by the walk, and reports whether pair could read it.
func comparePair(t *testing.T, before, msg, after []byte) bool {
	t.Helper()
	before = append([]byte{2<<3 | 2, 0}, before...)
	fast := &Scan{Msg: slices.Concat(before, msg, after)}
	slow := &Scan{Msg: fast.Msg}
	n := int32(len(before))
	p := span{n - 2, n - 1, n, n + int32(len(msg))}
	outer := &frame{place: span{end: int32(len(fast.Msg))}, depth: 1, parent: -1}
	if !fast.pair(&schemas[RangeResponse].fields[2], outer, p) {
		if len(fast.Values) > 0 {
			t.Errorf("%x: pair has refused it and added %d values", msg, len(fast.Values))
		}
		return false
	}
	if v := slow.walk(keyValue, &frame{place: p, depth: 2, parent: -1}); v != plain {
		t.Errorf("%x: pair has read it, the walk says %d", msg, v)
	}
	if !reflect.DeepEqual(fast.Values, slow.Values) {
		t.Errorf("%x: pair says %+v, the walk %+v", msg, fast.Values, slow.Values)
	}
	return true
}

// FuzzPair compares pair with the walk.
func FuzzPair(f *testing.F) {
	for _, c := range pairs() {
		f.Add([]byte{}, c.msg, make([]byte, 8))
	}
	f.Fuzz(func(t *testing.T, before, msg, after []byte) { comparePair(t, before, msg, after) })
}

type pairCase struct {
	name string
	msg  []byte
	fast bool
}

func pairs() []pairCase {
	key, value := lenField(1, []byte("/key")), lenField(5, []byte("value"))
	return []pairCase{
		{"all fields", slices.Concat(key, numField(2, 1), numField(3, 300), numField(4, 1<<40), value, numField(6, 1<<48)), true},
		{"no value", slices.Concat(key, numField(2, 1), numField(3, 300), numField(4, 1)), true},
		{"empty value", slices.Concat(key, lenField(5)), true},
		{"empty key", slices.Concat(lenField(1), value), true},
		{"no key", value, true},
		{"lease alone", numField(6, 5), true},
		{"nothing", nil, true},
		{"length of two bytes", slices.Concat(key, lenField(5, make([]byte, 200))), true},
		{"length of three bytes", slices.Concat(key, lenField(5, make([]byte, 1<<15))), true},
		{"long length", slices.Concat(key, []byte{pairValue, 0x81, 0x80, 0, 'v'}), true},
		{"length of four bytes", slices.Concat(key, []byte{pairValue, 0x81, 0x80, 0x80, 0, 'v'}), false},
		{"key twice", slices.Concat(key, key, value), false},
		{"number twice", slices.Concat(key, numField(3, 1), numField(3, 2), value), false},
		{"value twice", slices.Concat(key, value, value), false},
		{"value before key", slices.Concat(value, key), false},
		{"numbers in another order", slices.Concat(key, numField(3, 1), numField(2, 2), value), false},
		{"lease before value", slices.Concat(key, numField(6, 1), value), false},
		{"number after lease", slices.Concat(key, value, numField(6, 1), numField(7, 1)), false},
		{"number of eight bytes", slices.Concat(key, numField(2, 1<<49), value), false},
		{"unknown field", slices.Concat(key, value, lenField(15, []byte("x"))), false},
		{"unknown number", slices.Concat(key, numField(0, 1), value), false},
		{"key as a number", slices.Concat(numField(1, 1), value), false},
		{"value as a number", slices.Concat(key, numField(5, 1)), false},
		{"number as bytes", slices.Concat(key, lenField(2, []byte("x")), value), false},
		{"group", slices.Concat(key, []byte{2<<3 | 3, 2<<3 | 4}), false},
		{"fixed numbers", slices.Concat(key, []byte{2<<3 | 5, 0, 0, 0, 0}), false},
		{"long tag", slices.Concat([]byte{0x8a, 0, 1, 'k'}, value), false},
		{"cut key", key[:3], false},
		{"cut number", slices.Concat(key, numField(2, 300)[:2]), false},
		{"number that goes on behind", slices.Concat(key, []byte{2 << 3, 0x80}), false},
		{"lease that goes on behind", slices.Concat(key, value, []byte{6 << 3, 0x80}), false},
		{"cut value", slices.Concat(key, value[:4]), false},
	}
}

func TestPair(t *testing.T) {
	for _, c := range pairs() {
		if got := comparePair(t, nil, c.msg, make([]byte, 8)); got != c.fast {
			t.Errorf("%s: pair reports %v, want %v", c.name, got, c.fast)
		}
		for behind := range 8 { // what stands near the end may be for the walk
			comparePair(t, []byte("before"), c.msg, bytes.Repeat([]byte{0x80}, behind))
		}
	}
}

// TestRandomPairs: what generated code writes is read by pair, unless a number is
// very large, and what is left of it by a change is read as by the walk.
func TestRandomPairs(t *testing.T) {
	p := new(mvccpb.KeyValue)
	for i := range uint64(2000) {
		r := newRand(i)
		if err := proto.Unmarshal(randomWire(r, p.ProtoReflect().Descriptor(), 0, 0), p); err != nil {
			t.Fatal(err)
		}
		msg := marshal(t, p)
		large := uint64(p.CreateRevision|p.ModRevision|p.Version|p.Lease)>>49 > 0
		if ok := comparePair(t, nil, msg, make([]byte, 8)); !ok && !large {
			t.Errorf("%v: not read by pair", p)
		}
		for range min(len(msg), 20) {
			odd := bytes.Clone(msg)
			odd[r.IntN(min(len(odd), 100))] ^= 1 << r.IntN(8)
			comparePair(t, nil, odd, make([]byte, 8))
			comparePair(t, nil, odd[:r.IntN(len(odd))], odd)
		}
	}
}

// TestPairDepth: a pair may nest as deep as any message, and no deeper.
func TestPairDepth(t *testing.T) {
	for _, depth := range []int{1, maxDepth - 1, maxDepth} {
		s := &Scan{Msg: slices.Concat([]byte{2<<3 | 2, 10}, lenField(1, []byte("k")), lenField(5, []byte("value")), make([]byte, 8))}
		f := &frame{place: span{end: int32(len(s.Msg))}, depth: depth, parent: -1}
		if next := s.pairs(&schemas[RangeResponse].fields[2], f, 0); (next == 12) != (depth < maxDepth) {
			t.Errorf("depth %d: read up to %d", depth, next)
		}
	}
}

// TestLists opens lists with values whose lengths take more bytes before than
// after, whole and in portions, and compares the bytes with what generated code
// writes.
func TestLists(t *testing.T) {
	for _, size := range []int{0, 1, 30, 79, 80, 100, 127, 128, 200, 16300, 16383, 16384, 16400, 1<<21 - 1, 1 << 21} {
		sealed := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{Revision: 7}, More: true, Count: 40}
		for i := range 40 {
			if size > 1<<20 && i > 2 {
				break
			}
			sealed.Kvs = append(sealed.Kvs, &mvccpb.KeyValue{
				Key: fmt.Appendf(nil, "/registry/secrets/%d", i*i), CreateRevision: 5, ModRevision: 300, Version: 1,
				Value: bytes.Repeat([]byte{byte(i)}, overhead+max(0, size+i-20)), Lease: int64(i % 2),
			})
		}
		msg := marshal(t, sealed)
		for _, kv := range sealed.Kvs {
			kv.Value = kv.Value[overhead:]
		}
		want := marshal(t, sealed)
		s := parse(t, RangeResponse, bytes.Clone(msg))
		if got := s.InPlaceFunc(nil, s.opened()); !bytes.Equal(got, want) {
			t.Errorf("size %d: other bytes than generated code's", size)
		}
		work := make([]byte, len(msg))
		if n := s.openPortions(t, work, msg); !bytes.Equal(work[:n], want) {
			t.Errorf("size %d: other bytes in portions", size)
		}
	}
}

// TestUnchangedList: a list without sealed values is passed on where it stands,
// behind what was opened before it or at the place where it came in.
func TestUnchangedList(t *testing.T) {
	msg := marshal(t, rangeResponse(5))
	for _, before := range []int{0, 10, 100} {
		work := slices.Concat(make([]byte, 100), msg)
		s := parse(t, RangeResponse, work[100:])
		got := s.InPlaceFunc(work[:before], nil)
		if !bytes.Equal(got[before:], msg) || &got[0] != &work[0] {
			t.Errorf("behind %d bytes: %x", before, got)
		}
	}
	s := parse(t, RangeResponse, msg)
	if got := s.InPlaceFunc(nil, nil); &got[0] != &msg[0] || len(got) != len(msg) {
		t.Errorf("%d bytes of %d", len(got), len(msg))
	}
}

// FuzzWhole: what Whole takes from the beginning of a message is all fields that
// are there as a whole, and with less than it asks for there are no more.
func FuzzWhole(f *testing.F) {
	f.Add(marshal(f, rangeResponse(3)), 700)
	f.Add([]byte{0x0a, 0x80, 0x80, 0x80, 0, 0x18, 1, 0x12, 0}, 8)
	f.Add([]byte{0x02, 0, 0xf3, 1, 8, 1, 0xf4, 1}, 8)
	f.Fuzz(func(t *testing.T, msg []byte, have int) {
		have = max(0, min(have, len(msg)))
		n, need := Whole(msg[:have])
		if need != 0 && need <= have-n {
			t.Errorf("Whole asks for %d bytes, %d are there", need, have-n)
		}
		if need > 0 {
			if more, _ := Whole(msg[n:min(n+need-1, len(msg))]); more != 0 {
				t.Errorf("Whole asks for %d bytes, %d are enough", need, more)
			}
		}
		want := 0
		for want < len(msg) {
			_, _, n := protowire.ConsumeField(msg[want:])
			if n < 0 || want+n > have {
				break
			}
			want += n
		}
		if n != want {
			t.Errorf("Whole(%x) = %d, want %d", msg, n, want)
		}
	})
}
