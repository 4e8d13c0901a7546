package wire

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// marshal encodes a message by the generated code.
func marshal(t testing.TB, p proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parse reads a message that must be valid.
func parse(t testing.TB, m Message, msg []byte) *Scan {
	t.Helper()
	s := new(Scan)
	if err := s.Parse(m, msg); err != nil {
		t.Fatal(err)
	}
	return s
}

// lenField is a length-delimited field.
func lenField(n protowire.Number, parts ...[]byte) []byte {
	b := protowire.AppendTag(nil, n, protowire.BytesType)
	return protowire.AppendBytes(b, slices.Concat(parts...))
}

// numField is a number's field.
func numField(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// txn is a request with everything in it: both branches, a nested Txn, compares.
func txn() *etcdserverpb.TxnRequest {
	put := func(key, value string) *etcdserverpb.RequestOp {
		return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{
			RequestPut: &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(value)},
		}}
	}
	nested := &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{
			Key: []byte("/c"), RangeEnd: []byte("/d"), Target: etcdserverpb.Compare_VALUE, Result: etcdserverpb.Compare_LESS,
			TargetUnion: &etcdserverpb.Compare_Value{Value: []byte("operand")},
		}},
		Failure: []*etcdserverpb.RequestOp{put("/nested", "n")},
	}
	return &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{
			Key: []byte("/k"), Target: etcdserverpb.Compare_MOD,
			TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: 7},
		}},
		Success: []*etcdserverpb.RequestOp{
			put("/k", "v"),
			{Request: &etcdserverpb.RequestOp_RequestTxn{RequestTxn: nested}},
			put("/empty", ""),
		},
		Failure: []*etcdserverpb.RequestOp{
			{Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: &etcdserverpb.RangeRequest{Key: []byte("/k")}}},
			{Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{
				Key: []byte("/d"), RangeEnd: []byte("/e"), PrevKv: true,
			}}},
		},
	}
}

func TestTxnRequest(t *testing.T) {
	s := parse(t, TxnRequest, marshal(t, txn()))
	want := []Op{
		{Kind: OpCompare, Value: -1, Key: []byte("/k"), Target: int32(etcdserverpb.Compare_MOD)},
		{Kind: OpPut, Value: 0, Key: []byte("/k")},
		{Kind: OpCompare, Value: -1, Depth: 1, Key: []byte("/c"), End: []byte("/d"), Result: int32(etcdserverpb.Compare_LESS),
			Target: CompareValue, Operand: []byte("operand"), HasOperand: true},
		{Kind: OpPut, Value: 1, Depth: 1, Key: []byte("/nested")},
		{Kind: OpPut, Value: 2, Key: []byte("/empty")},
		{Kind: OpRange, Value: -1, Key: []byte("/k")},
		{Kind: OpDelete, Value: -1, Key: []byte("/d"), End: []byte("/e"), PrevKV: true},
	}
	if diff := cmp.Diff(want, s.Ops); diff != "" {
		t.Errorf("ops (-want +got):\n%s", diff)
	}
	for i := range s.Values {
		v := &s.Values[i]
		v.New, v.Replace = append([]byte("sealed "), v.Old...), true
	}
	got := new(etcdserverpb.TxnRequest)
	if err := proto.Unmarshal(s.Append(nil), got); err != nil {
		t.Fatal(err)
	}
	wantTxn := txn()
	wantTxn.Success[0].GetRequestPut().Value = []byte("sealed v")
	wantTxn.Success[1].GetRequestTxn().Failure[0].GetRequestPut().Value = []byte("sealed n")
	wantTxn.Success[2].GetRequestPut().Value = []byte("sealed ")
	if !proto.Equal(got, wantTxn) {
		t.Errorf("got %v\nwant %v", got, wantTxn)
	}
}

// TestLastWins are requests that are not in the plain form. What is scanned and
// what is sent must be what etcd makes of them.
func TestLastWins(t *testing.T) {
	put := func(key, value string) []byte {
		return slices.Concat(lenField(1, []byte(key)), lenField(2, []byte(value)))
	}
	key := func(k string) []byte { return lenField(1, []byte(k)) }
	for _, c := range []struct {
		name string
		m    Message
		msg  []byte
		want string // the only key
		old  string // its value
	}{
		{"key twice", PutRequest, slices.Concat(key("/a"), put("/b", "v")), "/b", "v"},
		{"value twice", PutRequest, slices.Concat(put("/a", "one"), lenField(2, []byte("two"))), "/a", "two"},
		{"empty value last", PutRequest, slices.Concat(put("/a", "one"), lenField(2)), "/a", ""},
		{"oneof with two members", TxnRequest, lenField(2, lenField(3, key("/del")), lenField(2, put("/put", "v"))), "/put", "v"},
		{"oneof the other way round", TxnRequest, lenField(2, lenField(2, put("/put", "v")), lenField(3, key("/del"))), "/del", ""},
		{"merged member", TxnRequest, lenField(2, lenField(2, put("/a", "v")), lenField(2, key("/b"))), "/b", "v"},
		{"leader twice", ProclaimRequest, slices.Concat(lenField(1, lenField(2, []byte("/a"))), lenField(1, lenField(2, []byte("/b"))), lenField(2, []byte("v"))), "/b", "v"},
		{"explicit empty range_end", DeleteRangeRequest, slices.Concat(key("/a"), lenField(2)), "/a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := parse(t, c.m, c.msg)
			if !s.Normalised {
				t.Error("not normalised")
			}
			if len(s.Ops) != 1 || string(s.Ops[0].Key) != c.want || s.Ops[0].End != nil {
				t.Fatalf("ops %+v, want one on %s", s.Ops, c.want)
			}
			if v := s.Ops[0].Value; v >= 0 && string(s.Values[v].Old) != c.old {
				t.Errorf("value %q, want %q", s.Values[v].Old, c.old)
			}
			if again := parse(t, c.m, s.Msg); again.Normalised {
				t.Errorf("normalised form %x is not plain", s.Msg)
			}
		})
	}
}

// TestWrongWireType: to the generated code of etcd 3.7 a known field of a wrong
// wire type is an unknown one; that of 3.5 and 3.6 refuses it. It is kept, so
// that each etcd decides.
func TestWrongWireType(t *testing.T) {
	msg := slices.Concat(numField(1, 7), lenField(1, []byte("/b")), lenField(2, []byte("v")))
	s := parse(t, PutRequest, msg)
	if !s.Normalised || string(s.Ops[0].Key) != "/b" || string(s.Values[0].Old) != "v" {
		t.Errorf("normalised %v, op %+v, value %q", s.Normalised, s.Ops[0], s.Values[0].Old)
	}
	if !bytes.HasSuffix(s.Msg, numField(1, 7)) {
		t.Errorf("message %x has lost its unknown field", s.Msg)
	}
}

// TestPlain are unusual encodings that need no normalising: every decoder reads
// them alike.
func TestPlain(t *testing.T) {
	for _, c := range []struct {
		name string
		msg  []byte
	}{
		{"value before key", slices.Concat(lenField(2, []byte("v")), lenField(1, []byte("/a")))},
		{"explicit empty value and zero", slices.Concat(lenField(2), lenField(1, []byte("/a")), numField(3, 0))},
		{"long varints", []byte{0x8a, 0x80, 0, 0x82, 0x80, 0, '/', 'a', 0x12, 0x81, 0, 'v'}},
		{"unknown fields", slices.Concat(lenField(99, []byte("x")), lenField(1, []byte("/a")), []byte{0xf3, 1, 8, 1, 0xf4, 1})},
	} {
		t.Run(c.name, func(t *testing.T) {
			if s := parse(t, PutRequest, c.msg); s.Normalised || string(s.Values[0].Key) != "/a" {
				t.Errorf("normalised %v, key %q", s.Normalised, s.Values[0].Key)
			}
			compareScan(t, new(Scan), PutRequest, c.msg, grow)
		})
	}
}

// TestNumbersAsEtcdReadsThem: enumerations have 32 bits, any number but 0 is true.
func TestNumbersAsEtcdReadsThem(t *testing.T) {
	s := parse(t, RangeRequest, slices.Concat(numField(6, 1<<32|4), numField(8, 1<<40), numField(13, 1<<63)))
	if op := s.Ops[0]; op.SortTarget != SortByValue || !op.KeysOnly || op.CountOnly || !op.Filters {
		t.Errorf("op %+v", op)
	}
}

// TestInPlaceUsesTheMessage checks that opening needs no other memory, and that
// a value that grows after all does not write over what follows.
func TestInPlaceUsesTheMessage(t *testing.T) {
	kv := func(k, v string) *mvccpb.KeyValue { return &mvccpb.KeyValue{Key: []byte(k), Value: []byte(v)} }
	response := &etcdserverpb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv("a", "12345678"), kv("b", "12345678"), kv("c", "")}, Count: 3}
	msg := marshal(t, response)
	s := parse(t, RangeResponse, msg)
	if len(s.Values) != 2 {
		t.Fatalf("%d values", len(s.Values))
	}
	for i := range s.Values {
		s.Values[i].New, s.Values[i].Replace = s.Values[i].Old[3:5], true
	}
	if out := s.InPlace(); &out[0] != &msg[0] || len(out) != len(msg)-12 {
		t.Errorf("%d bytes of %d, in place %v", len(out), len(msg), &out[0] == &msg[0])
	}
	msg = marshal(t, response)
	s = parse(t, RangeResponse, msg)
	s.Values[0].New, s.Values[0].Replace = bytes.Repeat([]byte{'x'}, 300), true
	s.Values[1].New, s.Values[1].Replace = s.Values[1].Old[7:], true
	response.Kvs[0].Value, response.Kvs[1].Value = s.Values[0].New, []byte("8")
	sameMeaning(t, RangeResponse, s.InPlace(), response)
}

// TestPrevious: previous values are marked as such wherever they are.
func TestPrevious(t *testing.T) {
	kv := func(v string) *mvccpb.KeyValue { return &mvccpb.KeyValue{Key: []byte("k"), Value: []byte(v)} }
	for _, c := range []struct {
		m    Message
		p    proto.Message
		want map[string]bool
	}{
		{RangeResponse, &etcdserverpb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv("a")}}, map[string]bool{"a": false}},
		{PutResponse, &etcdserverpb.PutResponse{PrevKv: kv("a")}, map[string]bool{"a": true}},
		{DeleteRangeResponse, &etcdserverpb.DeleteRangeResponse{PrevKvs: []*mvccpb.KeyValue{kv("a"), kv("b")}}, map[string]bool{"a": true, "b": true}},
		{WatchResponse, &etcdserverpb.WatchResponse{Events: []*mvccpb.Event{
			{Kv: kv("new"), PrevKv: kv("old")},
			{Type: mvccpb.Event_DELETE, Kv: kv(""), PrevKv: kv("last")},
		}}, map[string]bool{"new": false, "old": true, "last": true}},
	} {
		got := map[string]bool{}
		for _, v := range parse(t, c.m, marshal(t, c.p)).Values {
			got[string(v.Old)] = v.Prev
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: previous values (-want +got):\n%s", c.m, diff)
		}
	}
}

// TestScanHoldsNothingOfTheLastMessage: a pooled Scan must not keep a message,
// which may hold plaintext, alive.
func TestScanHoldsNothingOfTheLastMessage(t *testing.T) {
	s := parse(t, TxnRequest, marshal(t, txn()))
	s.Values[0].New = []byte("new")
	s.Normalised, s.HasHeader, s.most = true, true, 1
	s.Header.Revision, s.Watch.ID, s.leader, s.lease = 1, 1, []byte("leader"), 1
	s.Clear()
	for _, v := range s.Values[:cap(s.Values)] {
		if v.Key != nil || v.Old != nil || v.New != nil {
			t.Errorf("value %+v", v)
		}
	}
	for _, op := range s.Ops[:cap(s.Ops)] {
		if op.Key != nil || op.End != nil || op.Operand != nil {
			t.Errorf("op %+v", op)
		}
	}
	s.Values, s.Ops, s.nodes, s.scratch = nil, nil, nil, nil
	if diff := cmp.Diff(new(Scan), s, cmp.AllowUnexported(Scan{})); diff != "" {
		t.Errorf("a cleared Scan (-want +got):\n%s", diff)
	}
}

// TestNodesOnlyAroundValues: what holds no value is copied as it is, and costs no
// memory.
func TestNodesOnlyAroundValues(t *testing.T) {
	op := &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponsePut{ResponsePut: &etcdserverpb.PutResponse{}}}
	s := parse(t, TxnResponse, marshal(t, &etcdserverpb.TxnResponse{Responses: []*etcdserverpb.ResponseOp{op, op, op}}))
	if len(s.nodes) != 0 {
		t.Errorf("%d nodes", len(s.nodes))
	}
}
