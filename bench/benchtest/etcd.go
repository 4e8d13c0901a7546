// Package benchtest has an etcd for the tests of the benchmark, in the test's own process.
package benchtest

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// Etcd starts one and returns it as the target "direct", with a client. Both end with the test.
func Etcd(t *testing.T) (*rig.Target, *grpc.ClientConn) {
	t.Helper()
	root, err := os.MkdirTemp("", "bench") // shorter than t.TempDir, for a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	client, peer := url.URL{Scheme: "unix", Path: filepath.Join(root, "s")}, url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.UnsafeNoFsync = filepath.Join(root, "data"), true
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatalf("starting etcd: %v", err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		t.Fatalf("starting etcd: %v", err)
	}
	target := &rig.Target{Name: rig.Direct, Address: client.String()}
	pool, err := load.Dial(target.Address, 1, target.Dial()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return target, pool.Conn(0)
}
