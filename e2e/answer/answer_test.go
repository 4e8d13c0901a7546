package answer

import (
	"bytes"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// TestDiff: whatever a client can see makes two answers differ, and long values
// are not shown whole.
func TestDiff(t *testing.T) {
	with := func(change func(*Answer)) Answer {
		value := bytes.Repeat([]byte("x"), 1<<20)
		a := Answer{
			Messages: []proto.Message{&pb.RangeResponse{Count: 1, Kvs: []*mvccpb.KeyValue{{Key: []byte("k"), Value: value}}}},
			Header:   metadata.Pairs("a", "b"), Trailer: metadata.Pairs("c", "d"),
		}
		change(&a)
		return a
	}
	same := with(func(*Answer) {})
	if d := Diff(same, with(func(*Answer) {})); d != "" {
		t.Errorf("the same differs: %s", d)
	}
	for name, change := range map[string]func(*Answer){
		"value":   func(a *Answer) { a.Messages[0].(*pb.RangeResponse).Kvs[0].Value[1<<19] = 'y' },
		"count":   func(a *Answer) { a.Messages[0].(*pb.RangeResponse).Count = 2 },
		"none":    func(a *Answer) { a.Messages = nil },
		"two":     func(a *Answer) { a.Messages = append(a.Messages, &pb.RangeResponse{}) },
		"code":    func(a *Answer) { a.Code = codes.Unknown },
		"text":    func(a *Answer) { a.Text = "x" },
		"header":  func(a *Answer) { a.Header = nil },
		"trailer": func(a *Answer) { a.Trailer = metadata.Pairs("c", "e") },
	} {
		if d := Diff(same, with(change)); d == "" || len(d) > 4000 || strings.Contains(d, strings.Repeat("x", 2*longest)) {
			t.Errorf("%s: %d bytes of difference", name, len(d))
		}
	}
}
