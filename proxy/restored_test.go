package proxy_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/net/http2"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// startEtcdOn starts an empty etcd on a socket. Its cluster id depends on token.
func startEtcdOn(t testing.TB, socket, token string) *embed.Etcd {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.LogLevel = "fatal"
	cfg.UnsafeNoFsync = true
	client, peer := url.URL{Scheme: "unix", Path: socket}, url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.InitialClusterToken = token
	e, err := embed.StartEtcd(cfg)
	must(t, err)
	<-e.Server.ReadyNotify()
	return e
}

// TestEtcdIsReplaced puts an empty etcd, of another cluster, in the place of the one
// that has the keyring, and connects before the keyring has heard of it.
func TestEtcdIsReplaced(t *testing.T) {
	dir, err := os.MkdirTemp("", "etcd") // shorter than t.TempDir, for a socket's path is limited
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s.sock")
	old := startEtcdOn(t, socket, "old")
	l := newLab(t, setup{etcdURL: "unix://" + socket, still: true})
	_, err = l.client.Put(bounded(t), sealedPrefix+"a", "one")
	must(t, err)
	before, err := l.direct.Get(bounded(t), "/etcdseal/", clientv3.WithPrefix())
	must(t, err)
	must(t, l.client.Close())
	old.Close()
	t.Cleanup(startEtcdOn(t, socket, "new").Close)

	client := dial(t, l.address)
	_, err = client.Put(bounded(t), sealedPrefix+"b", "two")
	must(t, err)
	if raw := l.stored(t, sealedPrefix+"b"); !envelope.Is(raw) {
		t.Errorf("etcd holds %q", raw)
	}
	after, err := l.direct.Get(bounded(t), "/etcdseal/", clientv3.WithPrefix())
	must(t, err)
	if len(before.Kvs) != 1 || len(after.Kvs) != 1 || string(before.Kvs[0].Key) != string(after.Kvs[0].Key) {
		t.Errorf("the keyring was %v and is %v, want the same record", before.Kvs, after.Kvs)
	}
	if before.Header.ClusterId == after.Header.ClusterId {
		t.Error("the cluster is the same")
	}
}

// changes keeps the messages about etcd that are logged at Info or above.
type changes struct {
	slog.Handler
	logged chan string
}

func (c *changes) Enabled(context.Context, slog.Level) bool { return true }

func (c *changes) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && strings.Contains(r.Message, "etcd") {
		c.logged <- r.Message
	}
	return nil
}

// TestEtcdIsAwayIsLoggedOnce connects many times while etcd is away.
func TestEtcdIsAwayIsLoggedOnce(t *testing.T) {
	dir, err := os.MkdirTemp("", "etcd")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s.sock")
	log := &changes{Handler: slog.DiscardHandler, logged: make(chan string, 1000)}
	l := newLab(t, setup{etcdURL: "unix://" + socket, still: true, logger: slog.New(log)})
	turnedAway := func() {
		conn, err := net.Dial("tcp", l.address)
		must(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // and empty SETTINGS
		must(t, err)
		_, _ = io.Copy(io.Discard, conn) // until it is closed or reset
	}
	for range 5 {
		turnedAway()
	}
	t.Cleanup(startEtcdOn(t, socket, "one").Close)
	_, err = dial(t, l.address).Put(bounded(t), "a", "one")
	must(t, err)
	want := []string{"no connection to etcd, clients are turned away until there is one", "connected to etcd again"}
	var got []string
	for len(log.logged) > 0 {
		got = append(got, <-log.logged)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// movedStore claims to be in another cluster than it is until it is pinged.
type movedStore struct {
	dek.Store
	moved atomic.Bool
}

func (s *movedStore) ClusterID() uint64 {
	if s.moved.Load() {
		return 0xabc
	}
	return s.Store.ClusterID()
}

func (s *movedStore) Ping(ctx context.Context) error {
	s.moved.Store(false)
	return s.Store.Ping(ctx)
}

// TestTheKeyringMoves has the keyring come to another cluster than the one that a
// connection leads to: nothing is sealed on it, the error says what that may be, and it
// is given up.
func TestTheKeyringMoves(t *testing.T) {
	var store *movedStore
	l := newLab(t, setup{store: func(s dek.Store) dek.Store { store = &movedStore{Store: s}; return store }})
	ctx := bounded(t)
	_, err := l.client.Put(ctx, sealedPrefix+"a", "one")
	must(t, err)
	store.moved.Store(true)
	_, err = l.client.Put(ctx, sealedPrefix+"a", "two")
	if err == nil || !strings.Contains(err.Error(), "etcd was restored or replaced") || !strings.Contains(err.Error(), "more than one cluster") {
		t.Errorf("got %v, want both possibilities", err)
	}
	for err != nil && ctx.Err() == nil { // until the client has another connection
		_, err = l.client.Put(ctx, sealedPrefix+"a", "three")
	}
	must(t, err)
}
