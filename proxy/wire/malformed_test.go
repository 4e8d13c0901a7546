package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
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
	}{{1, true}, {128, true}, {maxDepth/2 - 1, true}, {maxDepth / 2, false}, {100000, false}} {
		msg := nestedTxn(c.txns)
		s := new(Scan)
		err := s.Parse(TxnRequest, msg)
		if (err == nil) != c.ok {
			t.Fatalf("%d transactions: %v", c.txns, err)
		}
		if refused := proto.Unmarshal(msg, new(etcdserverpb.TxnRequest)); (refused == nil) != c.ok {
			t.Fatalf("%d transactions: generated code says %v", c.txns, refused)
		}
		if err == nil && (s.Ops[0].Depth != c.txns-1 || string(s.Values[0].Key) != "/a") {
			t.Errorf("%d transactions: op %+v", c.txns, s.Ops[0])
		}
	}
	compareScan(t, new(Scan), TxnRequest, nestedTxn(300), grow)
}

func TestTooManyOps(t *testing.T) {
	op := lenField(2, lenField(2))
	s := new(Scan)
	if err := s.Parse(TxnRequest, bytes.Repeat(op, MaxOps)); err != nil {
		t.Errorf("%d ops: %v", MaxOps, err)
	}
	err := s.Parse(TxnRequest, bytes.Repeat(op, MaxOps+1))
	if !errors.Is(err, ErrTooManyOps) || errors.Is(err, ErrMalformed) {
		t.Errorf("%d ops: %v", MaxOps+1, err)
	}
	if cap(s.Ops)+cap(s.Values)+cap(s.nodes) > 3*keptEntries {
		t.Errorf("the scan keeps %d ops, %d values, %d nodes", cap(s.Ops), cap(s.Values), cap(s.nodes))
	}
}
