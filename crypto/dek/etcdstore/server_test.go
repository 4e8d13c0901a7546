package etcdstore_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
)

// server is a real etcd of one member on a unix socket, that can be stopped and started
// with another data directory.
type server struct {
	t        testing.TB
	dir      string // of the member's data
	endpoint string
	etcd     *embed.Etcd
}

// newServer starts an etcd with no data.
func newServer(t testing.TB) *server {
	t.Helper()
	root, err := os.MkdirTemp("", "etcd") // shorter than t.TempDir, for a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: filepath.Join(root, "data"), endpoint: "unix://" + filepath.Join(root, "s.sock")}
	t.Cleanup(func() {
		s.stop()
		_ = os.RemoveAll(root)
	})
	s.start()
	return s
}

func (s *server) start() {
	s.t.Helper()
	client, err := url.Parse(s.endpoint)
	if err != nil {
		s.t.Fatal(err)
	}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c := embed.NewConfig()
	c.Dir = s.dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.UnsafeNoFsync = true
	c.BcryptCost = 4 // the least: a password takes seconds under the race detector
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	if s.etcd, err = embed.StartEtcd(c); err != nil {
		s.t.Fatalf("starting etcd: %v", err)
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err := <-s.etcd.Err():
		s.t.Fatalf("starting etcd: %v", err)
	}
}

func (s *server) stop() {
	if s.etcd != nil {
		s.etcd.Close()
		s.etcd = nil
	}
}

// backup copies the data of an etcd that is stopped.
func (s *server) backup() string {
	s.t.Helper()
	to := filepath.Join(s.t.TempDir(), "backup")
	if err := os.CopyFS(to, os.DirFS(s.dir)); err != nil {
		s.t.Fatal(err)
	}
	return to
}

// restore puts a copy in the place of the data of an etcd that is stopped.
func (s *server) restore(backup string) {
	s.t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Fatal(err)
	}
	if err := os.CopyFS(s.dir, os.DirFS(backup)); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(s.dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// dial returns a store in the etcd. The caller closes it.
func (s *server) dial(prefix string) dek.Burier {
	s.t.Helper()
	store, err := etcdstore.Dial(etcdstore.Config{Endpoints: []string{s.endpoint}, Prefix: prefix})
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

// client returns a client of the etcd, as a person with etcdctl has one.
func (s *server) client() *clientv3.Client {
	s.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}
