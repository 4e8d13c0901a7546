package load

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// kv answers every Range with one value and counts what it was asked.
type kv struct {
	pb.UnimplementedKVServer
	value          []byte
	calls          atomic.Int64
	inFlight, most atomic.Int64
}

func (s *kv) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	n := s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	s.calls.Add(1)
	return &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: r.Key, Value: s.value}}}, nil
}

func serve(t *testing.T, s *kv) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "unix://" + socket
}

func TestRunCountsEveryCall(t *testing.T) {
	s := &kv{value: make([]byte, 1024)}
	pool, err := Dial(serve(t, s), 2, 8, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	requests, err := Serialise([]*pb.RangeRequest{{Key: []byte("a")}, {Key: []byte("b")}})
	if err != nil {
		t.Fatal(err)
	}
	w := Work{Method: pb.KV_Range_FullMethodName, Requests: requests, MinReply: 1024}
	got, err := pool.Run(t.Context(), w, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got.Calls == 0 || int64(got.Calls) != s.calls.Load() {
		t.Errorf("run says %d calls, the server saw %d", got.Calls, s.calls.Load())
	}
	if s.most.Load() > 8 {
		t.Errorf("%d calls were in flight, want at most 8", s.most.Load())
	}
	w.MinReply = 4096
	if _, err := pool.Run(t.Context(), w, time.Hour); err == nil || !strings.Contains(err.Error(), "want at least 4096") {
		t.Errorf("run over short answers gave %v, want an error", err)
	}
	w.Method = "/etcdserverpb.KV/None"
	if _, err := pool.Run(t.Context(), w, time.Hour); err == nil {
		t.Error("run of an unknown method gave no error")
	}
}

func TestDialRefusesAnUnevenShare(t *testing.T) {
	if _, err := Dial("unix:///none", 3, 8); err == nil {
		t.Error("8 calls on 3 connections were accepted")
	}
}
