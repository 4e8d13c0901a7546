package assist_test

import (
	"context"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/proxy/assist"
)

// startEtcd runs an etcd in this process until the test ends and returns a
// connection to it.
func startEtcd(t testing.TB, change func(*embed.Config)) *grpc.ClientConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "assist") // short enough for sockets
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	client, peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "client")}, url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer")}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.UnsafeNoFsync = "assist", filepath.Join(dir, "data"), true
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.LogLevel, cfg.LogOutputs = "error", []string{filepath.Join(dir, "log")}
	if change != nil {
		change(cfg)
	}
	etcd, err := embed.StartEtcd(cfg)
	must(t, err)
	t.Cleanup(etcd.Close)
	<-etcd.Server.ReadyNotify()
	conn, err := grpc.NewClient(client.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// assisted is a connection whose ranges and transactions go through an engine.
type assisted struct {
	*grpc.ClientConn
	engine *assist.Engine
}

func (a assisted) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	var answer proto.Message
	var err error
	switch in := in.(type) {
	case *pb.RangeRequest:
		answer, err = a.engine.Range(ctx, in)
	case *pb.TxnRequest:
		answer, err = a.engine.Txn(ctx, in)
	default:
		return a.ClientConn.Invoke(ctx, method, in, out, opts...)
	}
	header, trailer := metadata.MD{}, metadata.Pairs("content-type", "application/grpc")
	if err == nil {
		header, trailer = trailer, header
	} else {
		header = nil
	}
	for _, o := range opts { // the difference test compares metadata
		if h, ok := o.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = header
		}
		if h, ok := o.(grpc.TrailerCallOption); ok {
			*h.TrailerAddr = trailer
		}
	}
	if err == nil {
		proto.Merge(out.(proto.Message), answer)
	}
	return err
}

// recorded is a KV that sees every call.
type recorded struct {
	pb.KVClient
	calls  int
	before func(call int, request proto.Message) // before each, counted from 1
}

func (r *recorded) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	r.note(in)
	return r.KVClient.Range(ctx, in, opts...)
}

func (r *recorded) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	r.note(in)
	return r.KVClient.Txn(ctx, in, opts...)
}

func (r *recorded) note(in proto.Message) {
	r.calls++
	if r.before != nil {
		r.before(r.calls, in)
	}
}

func everything(_, _ []byte) bool { return true }
