package load

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// kv answers every Range with one value, a RangeStream with that twice, and counts what it was asked.
type kv struct {
	pb.UnimplementedKVServer
	value          []byte
	calls          atomic.Int64
	inFlight, most atomic.Int64
}

func (s *kv) answer(key []byte) *pb.RangeResponse {
	return &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 1 << 62, Revision: 77, RaftTerm: 2}, Kvs: []*mvccpb.KeyValue{{Key: key, Value: s.value}}}
}

func (s *kv) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	n := s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	s.calls.Add(1)
	return s.answer(r.Key), nil
}

func (s *kv) RangeStream(r *pb.RangeRequest, stream grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	for range 2 {
		if err := stream.Send(&pb.RangeStreamResponse{RangeResponse: s.answer(r.Key)}); err != nil {
			return err
		}
	}
	return nil
}

func (s *kv) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	return &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: 78}, Succeeded: true, Responses: []*pb.ResponseOp{{}}}, nil
}

func serve(t *testing.T, s *kv) *Pool {
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
	pool, err := Dial("unix://"+socket, 2, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func get(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := Invoke(ctx, conn, pb.KV_Range_FullMethodName, []byte("\x0a\x01a"))
	return err
}

func TestRunCountsEveryCall(t *testing.T) {
	s := &kv{value: make([]byte, 1024)}
	pool := serve(t, s)
	got, err := pool.Run(t.Context(), get, 8, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got.Calls == 0 || int64(got.Calls) != s.calls.Load() {
		t.Errorf("run says %d calls, the server saw %d", got.Calls, s.calls.Load())
	}
	if s.most.Load() > 8 {
		t.Errorf("%d calls were in flight, want at most 8", s.most.Load())
	}
	if _, err := pool.Run(t.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := Invoke(ctx, conn, "/etcdserverpb.KV/None", nil)
		return err
	}, 8, time.Hour); err == nil || !strings.Contains(err.Error(), "KV/None") {
		t.Errorf("run of an unknown method gave %v, want an error that names it", err)
	}
}

func TestRunAtMakesEveryCall(t *testing.T) {
	s := &kv{}
	got, err := serve(t, s).RunAt(t.Context(), get, Pace{PerSecond: 2000, Duration: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if s.calls.Load() != 200 || got.Latency.Count() != 200 || got.Late.Count() != 200 {
		t.Errorf("the server saw %d calls, %d were counted, want 200", s.calls.Load(), got.Latency.Count())
	}
}

func TestReply(t *testing.T) {
	s := &kv{value: make([]byte, 1024)}
	pool := serve(t, s)
	message := proto.Size(s.answer([]byte("a")))
	for _, c := range []struct {
		name string
		call func() (Reply, error)
		want Reply
	}{
		{"range", func() (Reply, error) {
			return Invoke(t.Context(), pool.Conn(0), pb.KV_Range_FullMethodName, []byte("\x0a\x01a"))
		},
			Reply{Size: message, Messages: 1, Revision: 77}},
		{"transaction", func() (Reply, error) { return Invoke(t.Context(), pool.Conn(0), pb.KV_Txn_FullMethodName, nil) },
			Reply{Size: 8, Messages: 1, Revision: 78, Succeeded: true}},
		{"stream", func() (Reply, error) {
			r, err := Stream(t.Context(), pool.Conn(0), pb.KV_RangeStream_FullMethodName, []byte("\x0a\x01a"))
			r.Revision = 0 // lies a level deeper, and nobody asks
			return r, err
		}, Reply{Size: 2 * (message + 3), Messages: 2}},
	} {
		got, err := c.call()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if _, err := Stream(t.Context(), pool.Conn(0), "/etcdserverpb.KV/None", nil); err == nil {
		t.Error("stream of an unknown method gave no error")
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("\x0a\x02\x18\x4e\x10\x01"))
	f.Fuzz(func(_ *testing.T, b []byte) { new(Reply).parse(b) }) // must not panic
}
