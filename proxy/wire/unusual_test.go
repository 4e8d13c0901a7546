package wire

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// group is a field encoded as a group.
func group(n protowire.Number, parts ...[]byte) []byte {
	b := protowire.AppendTag(nil, n, protowire.StartGroupType)
	return protowire.AppendTag(append(b, slices.Concat(parts...)...), n, protowire.EndGroupType)
}

// seen tells what a Scan holds, in short: operations as put /key=value, values of
// responses as /key=value, previous ones with a ^.
func seen(s *Scan) string {
	var list []string
	for _, op := range s.Ops {
		kind := map[OpKind]string{OpRange: "range", OpPut: "put", OpDelete: "delete", OpCompare: "compare"}[op.Kind]
		text := fmt.Sprintf("%s %s", kind, op.Key)
		if op.Value >= 0 {
			text += fmt.Sprintf("=%s", s.Values[op.Value].Old)
		}
		if op.Lease != 0 {
			text += fmt.Sprintf(" lease %d", op.Lease)
		}
		if op.IgnoreValue {
			text += " ignoring the value"
		}
		if op.HasOperand {
			text += fmt.Sprintf(" with %s", op.Operand)
		}
		list = append(list, text)
	}
	for _, v := range s.Values {
		if len(s.Ops) == 0 {
			list = append(list, fmt.Sprintf("%s=%s%s", v.Key, v.Old, map[bool]string{true: "^"}[v.Prev]))
		}
	}
	return strings.Join(list, ", ")
}

// TestUnusual reads messages as no client and no etcd writes them: they must mean
// here what they mean to etcd. compareScan asks the generated code; what is wanted
// is written down as well, so that a change of the generated code is noticed.
func TestUnusual(t *testing.T) {
	key := func(k string) []byte { return lenField(1, []byte(k)) }
	put := func(k, v string) []byte { return slices.Concat(key(k), lenField(2, []byte(v))) }
	kv := func(k, v string) []byte { return slices.Concat(key(k), lenField(5, []byte(v))) }
	op := func(members ...[]byte) []byte { return lenField(2, members...) } // of a Txn's success
	for _, c := range []struct {
		name       string
		m          Message
		msg        []byte
		normalised bool
		want       string
	}{
		{"number twice", PutRequest, slices.Concat(put("/a", "v"), numField(3, 7), numField(3, 9)), true, "put /a=v lease 9"},
		{"number taken back", PutRequest, slices.Concat(put("/a", "v"), numField(5, 1), numField(5, 0)), true, "put /a=v"},
		{"key taken back", PutRequest, slices.Concat(put("/a", "v"), lenField(1)), true, "put =v"},
		{"ignore_value", PutRequest, slices.Concat(key("/a"), numField(5, 1)), false, "put /a= ignoring the value"},
		{"ignore_value with a value", PutRequest, slices.Concat(put("/a", "v"), numField(5, 1<<32)), false, "put /a=v ignoring the value"},
		{"no value", PutRequest, key("/a"), false, "put /a="},
		{"value of length 0", PutRequest, slices.Concat(key("/a"), lenField(2)), false, "put /a="},
		{"nothing at all", PutRequest, nil, false, "put ="},

		{"key as a number", PutRequest, slices.Concat(numField(1, 1), put("/a", "v")), true, "put /a=v"},
		{"value as a group", PutRequest, slices.Concat(put("/a", "v"), group(2, lenField(2, []byte("w")))), true, "put /a=v"},
		{"value as a fixed number", PutRequest, slices.Concat(put("/a", "v"), []byte{2<<3 | 5, 'w', 'w', 'w', 'w'}), true, "put /a=v"},
		{"lease as bytes", PutRequest, slices.Concat(put("/a", "v"), lenField(3, []byte{7})), true, "put /a=v"},
		{"operation as a group", TxnRequest, slices.Concat(group(2, lenField(2, put("/a", "v"))), op(lenField(2, put("/b", "w")))), true, "put /b=w"},
		{"put as a group", TxnRequest, op(group(2, put("/a", "v")), lenField(3, key("/b"))), true, "delete /b"},
		{"unknown group around a put", TxnRequest, slices.Concat(group(9, op(lenField(2, put("/a", "v")))), op(lenField(3, key("/b")))), false, "delete /b"},

		{"put, delete, put", TxnRequest, op(lenField(2, put("/a", "v")), lenField(3, key("/b")), lenField(2, key("/c"))), true, "put /c="},
		{"put twice is merged", TxnRequest, op(lenField(2, put("/a", "v")), lenField(2, key("/c"))), true, "put /c=v"},
		{"range after txn", TxnRequest, op(lenField(4, op(lenField(2, put("/a", "v")))), lenField(1, key("/b"))), true, "range /b"},
		{"txn twice is merged", TxnRequest, op(lenField(4, op(lenField(2, put("/a", "v")))), lenField(4, op(lenField(2, put("/b", "w"))))), true, "put /a=v, put /b=w"},
		{"txn with put between", TxnRequest, op(lenField(4, op(lenField(2, put("/a", "v")))), lenField(2, put("/c", "x")), lenField(4, op(lenField(2, put("/b", "w"))))), true, "put /b=w"},
		{"operation without a member", TxnRequest, slices.Concat(op(), op(lenField(2, put("/a", "v")))), false, "put /a=v"},
		{"operand and then a version", TxnRequest, lenField(1, lenField(3, []byte("/a")), lenField(7, []byte("x")), numField(4, 1)), true, "compare /a"},
		{"version and then an operand", TxnRequest, lenField(1, lenField(3, []byte("/a")), numField(4, 1), lenField(7, []byte("x"))), true, "compare /a with x"},
		{"empty operand", TxnRequest, lenField(1, lenField(3, []byte("/a")), lenField(7)), false, "compare /a with "},

		{"leader merged", ProclaimRequest, slices.Concat(lenField(1, lenField(2, []byte("/a"))), lenField(1, numField(4, 5)), lenField(2, []byte("v"))), true, "put /a=v lease 5"},
		{"leader behind the value", ProclaimRequest, slices.Concat(lenField(2, []byte("v")), lenField(1, lenField(2, []byte("/a")))), false, "put /a=v"},
		{"resign with a name", ResignRequest, lenField(1, key("name"), lenField(2, []byte("/a"))), false, "delete /a"},
		{"campaign twice named", CampaignRequest, slices.Concat(key("/a"), key("/b"), numField(2, 255), lenField(3, []byte("v"))), true, "put /b/ff=v lease 255"},

		{"pair merged", LeaderResponse, slices.Concat(lenField(2, kv("/a", "v")), lenField(2, key("/b"))), true, "/b=v"},
		{"event's pair merged", WatchResponse, lenField(11, lenField(2, key("/a")), lenField(2, kv("/a", "v")), lenField(3, kv("/a", "old"))), true, "/a=v, /a=old^"},
		{"value twice in a list", RangeResponse, slices.Concat(lenField(2, kv("/a", "v"), lenField(5, []byte("w"))), lenField(2, kv("/b", "x"))), true, "/a=w, /b=x"},
		{"value before key in a list", RangeResponse, slices.Concat(lenField(2, lenField(5, []byte("w")), key("/a")), lenField(2, kv("/b", "x"))), false, "/a=w, /b=x"},
		{"values of length 0", RangeResponse, slices.Concat(lenField(2, kv("/a", "")), lenField(2, key("/b")), lenField(2)), false, ""},
		{"header behind the pairs", RangeResponse, slices.Concat(lenField(2, kv("/a", "v")), lenField(1, numField(3, 9)), lenField(2, kv("/b", "w"))), false, "/a=v, /b=w"},
		{"chunk merged", RangeStreamResponse, slices.Concat(lenField(1, lenField(2, kv("/a", "v"))), lenField(1, lenField(2, kv("/b", "w")))), true, "/a=v, /b=w"},
		{"answer switched", TxnResponse, lenField(3, lenField(1, lenField(2, kv("/a", "v"))), lenField(2, lenField(2, kv("/b", "w")))), true, "/b=w^"},
		{"pair as a group", RangeResponse, slices.Concat(group(2, kv("/a", "v")), lenField(2, kv("/b", "w"))), true, "/b=w"},
		{"unknown fields in a pair", RangeResponse, lenField(2, kv("/a", "v"), lenField(15, []byte("x"))), false, "/a=v"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := parse(t, c.m, c.msg)
			if got := seen(s); got != c.want {
				t.Errorf("seen %q, want %q", got, c.want)
			}
			if s.Normalised != c.normalised {
				t.Errorf("normalised %v", s.Normalised)
			}
			for _, f := range changes {
				compareScan(t, new(Scan), c.m, slices.Clone(c.msg), f)
			}
		})
	}
}

// TestFilters: a list of numbers may be packed or not, and both in turn.
func TestFilters(t *testing.T) {
	msg := lenField(1, lenField(1, []byte("/a")), lenField(5, []byte{0, 1}), numField(5, 1), lenField(5), numField(6, 1))
	s := parse(t, WatchRequest, msg)
	if s.Normalised || string(s.Watch.Key) != "/a" || !s.Watch.PrevKV {
		t.Errorf("normalised %v, %+v", s.Normalised, s.Watch)
	}
	compareScan(t, s, WatchRequest, msg, grow)
}

// TestPreviousInTxn: a Txn answers with previous pairs at every depth.
func TestPreviousInTxn(t *testing.T) {
	kv := func(k, v string) *mvccpb.KeyValue { return &mvccpb.KeyValue{Key: []byte(k), Value: []byte(v)} }
	inner := &etcdserverpb.TxnResponse{Responses: []*etcdserverpb.ResponseOp{
		{Response: &etcdserverpb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &etcdserverpb.DeleteRangeResponse{
			Deleted: 2, PrevKvs: []*mvccpb.KeyValue{kv("/a", "1"), kv("/b", "2")},
		}}},
		{Response: &etcdserverpb.ResponseOp_ResponseRange{ResponseRange: &etcdserverpb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv("/c", "3")}}}},
	}}
	msg := marshal(t, &etcdserverpb.TxnResponse{Header: &etcdserverpb.ResponseHeader{Revision: 9}, Responses: []*etcdserverpb.ResponseOp{
		{Response: &etcdserverpb.ResponseOp_ResponsePut{ResponsePut: &etcdserverpb.PutResponse{PrevKv: kv("/p", "0")}}},
		{Response: &etcdserverpb.ResponseOp_ResponseTxn{ResponseTxn: inner}},
	}})
	if got, want := seen(parse(t, TxnResponse, msg)), "/p=0^, /a=1^, /b=2^, /c=3"; got != want {
		t.Errorf("seen %q, want %q", got, want)
	}
	for _, f := range changes {
		compareScan(t, new(Scan), TxnResponse, slices.Clone(msg), f)
	}
}

// TestFragments: every part of a revision is opened by itself, and says that more
// follows or not.
func TestFragments(t *testing.T) {
	for _, more := range []bool{true, false} {
		p := watchResponse()
		p.Fragment = more
		s := parse(t, WatchResponse, marshal(t, p))
		if s.Watch.Fragment != more || s.Watch.Events != 1 || s.Watch.ID != p.WatchId || len(s.Values) != 2 {
			t.Errorf("fragment %v: %+v with %d values", more, s.Watch, len(s.Values))
		}
		before := len(s.Msg)
		if got := s.InPlaceFunc(nil, s.opened()); len(got) != before-2*overhead {
			t.Errorf("fragment %v: %d bytes of %d", more, len(got), before)
		}
	}
}
