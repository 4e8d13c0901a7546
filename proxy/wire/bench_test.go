package wire

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// overhead and prefixed are the sizes of etcdseal's envelope: what opening takes
// off a value, and how much of that stands before the plaintext.
const (
	overhead = 48
	prefixed = 20
)

// rangeResponse is a list of secrets as kube-apiserver gets it: n sealed values
// of 1 KiB.
func rangeResponse(n int) *etcdserverpb.RangeResponse {
	p := &etcdserverpb.RangeResponse{
		Header: &etcdserverpb.ResponseHeader{ClusterId: 1 << 62, MemberId: 1 << 61, Revision: 123456, RaftTerm: 7},
		Count:  int64(n),
	}
	for i := range n {
		p.Kvs = append(p.Kvs, &mvccpb.KeyValue{
			Key:            fmt.Appendf(nil, "/registry/secrets/namespace-%04d/secret-%04d", i/10, i),
			CreateRevision: int64(1000 + i), ModRevision: int64(100000 + i), Version: 3,
			Value: bytes.Repeat([]byte{byte(i)}, 1024+overhead),
		})
	}
	return p
}

// updateTxn is an update by kube-apiserver: If MOD EQUAL Then Put Else Range.
func updateTxn(value int) *etcdserverpb.TxnRequest {
	key := []byte("/registry/secrets/namespace-0001/secret-0001")
	return &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{
			Key: key, Target: etcdserverpb.Compare_MOD,
			TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: 123456},
		}},
		Success: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestPut{
			RequestPut: &etcdserverpb.PutRequest{Key: key, Value: bytes.Repeat([]byte{1}, value)},
		}}},
		Failure: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestRange{
			RequestRange: &etcdserverpb.RangeRequest{Key: key},
		}}},
	}
}

// watchResponse is an event with both values.
func watchResponse() *etcdserverpb.WatchResponse {
	kvs := rangeResponse(2).Kvs
	return &etcdserverpb.WatchResponse{
		Header: &etcdserverpb.ResponseHeader{ClusterId: 1 << 62, Revision: 123456}, WatchId: 3,
		Events: []*mvccpb.Event{{Kv: kvs[0], PrevKv: kvs[1]}},
	}
}

// job is one message with what a proxy does to it.
type job struct {
	name string
	m    Message
	p    proto.Message
	open bool // in place, else seal into a buffer
}

func jobs() []job {
	return []job{
		{"Range1", RangeResponse, rangeResponse(1), true},
		{"Range500", RangeResponse, rangeResponse(500), true},
		{"RangeStream500", RangeStreamResponse, &etcdserverpb.RangeStreamResponse{RangeResponse: rangeResponse(500)}, true},
		{"Watch", WatchResponse, watchResponse(), true},
		{"Put", PutRequest, updateTxn(1024).Success[0].GetRequestPut(), false},
		{"Txn", TxnRequest, updateTxn(1024), false},
		{"NestedTxn", TxnRequest, txn(), false},
		{"RangeRequest", RangeRequest, updateTxn(0).Failure[0].GetRequestRange(), false},
	}
}

// run does to a message what a proxy does, without the cryptography. buf takes
// the result of sealing, work is where the message stands for opening.
func (j job) run(s *Scan, msg, work, sealed, buf []byte) ([]byte, error) {
	if !j.open {
		if err := s.Parse(j.m, msg); err != nil {
			return nil, err
		}
		for i := range s.Values {
			s.Values[i].New, s.Values[i].Replace = sealed[:len(s.Values[i].Old)+overhead], true
		}
		return s.Append(buf[:0]), nil
	}
	copy(work, msg)
	if err := s.Parse(j.m, work); err != nil {
		return nil, err
	}
	for i := range s.Values {
		v := &s.Values[i]
		v.New, v.Replace = v.Old[prefixed:len(v.Old)-overhead+prefixed], true
	}
	return s.InPlace(), nil
}

func TestNoAllocations(t *testing.T) {
	for _, j := range jobs() {
		s, msg := new(Scan), marshal(t, j.p)
		work, sealed, buf := slices.Clone(msg), make([]byte, 4096), make([]byte, 0, 2*len(msg)+4096)
		var err error
		if n := testing.AllocsPerRun(50, func() { _, err = j.run(s, msg, work, sealed, buf) }); n != 0 {
			t.Errorf("%s: %v allocations", j.name, n)
		}
		if err != nil {
			t.Errorf("%s: %v", j.name, err)
		}
	}
}

// BenchmarkMessage is one message through Parse and InPlace or Append. The copy
// that restores a message that was opened in place is part of it; BenchmarkCopy
// tells its share.
func BenchmarkMessage(b *testing.B) {
	for _, j := range jobs() {
		b.Run(j.name, func(b *testing.B) {
			s, msg := new(Scan), marshal(b, j.p)
			work, sealed, buf := slices.Clone(msg), make([]byte, 4096), make([]byte, 0, 2*len(msg)+4096)
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := j.run(s, msg, work, sealed, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParse is Parse alone.
func BenchmarkParse(b *testing.B) {
	for _, j := range jobs() {
		b.Run(j.name, func(b *testing.B) {
			s, msg := new(Scan), marshal(b, j.p)
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Parse(j.m, msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGenerated is the decoding and encoding of the same messages by the
// generated code, for comparison.
func BenchmarkGenerated(b *testing.B) {
	for _, j := range jobs() {
		b.Run(j.name, func(b *testing.B) {
			msg := marshal(b, j.p)
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				if _, v := normalise(j.m, msg, MaxOps); v != plain {
					b.Fatal(v.err())
				}
			}
		})
	}
}

// BenchmarkCopy copies the list of 500 values.
func BenchmarkCopy(b *testing.B) {
	msg := marshal(b, rangeResponse(500))
	work := slices.Clone(msg)
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		copy(work, msg)
	}
}
