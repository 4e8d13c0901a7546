package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name string
		m    Message
		msg  []byte
	}{
		{"cut tag", PutRequest, []byte{0x80}},
		{"cut length", PutRequest, []byte{0x0a, 0x80}},
		{"cut value", PutRequest, []byte{0x0a, 2, '/'}},
		{"length beyond any memory", PutRequest, []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},
		{"varint of 65 bits", PutRequest, []byte{0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}},
		{"field 0", PutRequest, []byte{0x02, 0}},
		{"field 2^29", PutRequest, []byte{0x82, 0x80, 0x80, 0x80, 0x10, 0}},
		{"field 2^32+2, which gogo takes for 2", PutRequest, []byte{0x92, 0x80, 0x80, 0x80, 0x80, 1, 1, 'v'}},
		{"wire type 6", PutRequest, []byte{0x0e, 0}},
		{"end of no group", PutRequest, []byte{0x0c}},
		{"group without end", PutRequest, []byte{0xf3, 1}},
		{"bad header", RangeResponse, lenField(1, []byte{0x08})},
		{"bad packed list", WatchRequest, lenField(1, lenField(5, []byte{0x80}))},
		{"reason that is not UTF-8", WatchResponse, lenField(6, []byte{0xff})},
		{"no message", NoMessage, nil},
		{"part of a message", keyValue, nil},
		{"no such message", numMessages, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(Scan)
			if err := s.Parse(c.m, c.msg); !errors.Is(err, ErrMalformed) {
				t.Errorf("Parse = %v", err)
			}
			if s.Msg != nil || len(s.Values)+len(s.Ops) > 0 {
				t.Errorf("the scan still holds %+v", s)
			}
			if p := generated(c.m); p != nil && proto.Unmarshal(c.msg, p) == nil {
				t.Error("the generated code takes it")
			}
		})
	}
}

// nestedTxn is a Put inside of n transactions.
func nestedTxn(n int) []byte {
	// Built from the inside, back to front: every length is known then.
	b := lenField(2, lenField(1, []byte("/a")), lenField(2, []byte("v")))
	slices.Reverse(b)
	add := func(tag byte) {
		length := protowire.AppendVarint(nil, uint64(len(b)))
		slices.Reverse(length)
		b = append(append(b, length...), tag)
	}
	for i := range n {
		add(2<<3 | 2) // success, a RequestOp
		if i < n-1 {
			add(4<<3 | 2) // request_txn
		}
	}
	slices.Reverse(b)
	return b
}

func TestDepth(t *testing.T) {
	for _, c := range []struct {
		txns int
		ok   bool
	}{{1, true}, {128, true}, {511, true}, {512, false}, {10000, false}, {100000, false}} {
		for _, odd := range []bool{false, true} {
			msg := nestedTxn(c.txns)
			if odd { // as the first field, so that all is left to the generated code
				msg = append(numField(1, 1), msg...)
			}
			s := new(Scan)
			err := s.Parse(TxnRequest, msg)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrTooManyOps) {
				t.Fatalf("%d transactions: %v", c.txns, err)
			}
			if err == nil && (s.Ops[0].Depth != c.txns-1 || string(s.Values[0].Key) != "/a") {
				t.Errorf("%d transactions: op %+v", c.txns, s.Ops[0])
			}
		}
	}
	compareScan(t, new(Scan), TxnRequest, nestedTxn(300), grow)
}

func TestTooManyOps(t *testing.T) {
	small, large := lenField(2, lenField(2)), lenField(2, lenField(2, lenField(1, make([]byte, 20))))
	s := new(Scan)
	for _, c := range []struct {
		op []byte
		n  int
		ok bool
	}{{small, 1365, true}, {small, 1366, false}, {large, MaxOps, true}, {large, MaxOps + 1, false}} {
		err := s.Parse(TxnRequest, bytes.Repeat(c.op, c.n))
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, ErrTooManyOps) || errors.Is(err, ErrMalformed)) {
			t.Errorf("%d operations of %d bytes: %v", c.n, len(c.op), err)
		}
	}
	if cap(s.Ops)+cap(s.Values)+cap(s.nodes) > 3*keptEntries {
		t.Errorf("the scan keeps %d ops, %d values, %d nodes", cap(s.Ops), cap(s.Values), cap(s.nodes))
	}
}
