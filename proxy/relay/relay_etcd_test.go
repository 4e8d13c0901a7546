package relay_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/net/http2/hpack"

	"github.com/etcdseal/etcdseal/proxy/relay"
)

// session routes every stream the same way.
type session struct {
	route func(path string) relay.Route
	own   *relay.OwnCall
}

func (s *session) Start(context.Context, func()) (*relay.OwnCall, error) { return s.own, nil }

func (s *session) Route(fields []hpack.HeaderField) relay.Route {
	for _, f := range fields {
		if f.Name == ":path" && s.route != nil {
			return s.route(f.Value)
		}
	}
	return relay.Route{}
}

// startEtcd runs an etcd server in this process and returns its address.
func startEtcd(t testing.TB) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.LogLevel = "error"
	cfg.UnsafeNoFsync = true
	u, _ := url.Parse("http://127.0.0.1:0")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*u}, []url.URL{*u}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*u}, []url.URL{*u}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return e.Clients[0].Addr().String()
}

// startRelay runs pairs between a listener on loopback and target.
func startRelay(t testing.TB, target string, cfg relay.Config, s relay.Session) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				c, _, err := relay.ReadPreface(conn, 5*time.Second)
				if err != nil {
					conn.Close()
					return
				}
				up, err := net.Dial("tcp", target)
				if err != nil {
					conn.Close()
					return
				}
				if err := relay.New(cfg, s, c, up).Run(ctx); err != nil && ctx.Err() == nil {
					t.Logf("pair ended: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); cancel(); wg.Wait() })
	return ln.Addr().String()
}

func dial(t testing.TB, addr string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echo forwards every message, in memory of its own when copy is set.
type echo struct{ copy bool }

func (e echo) Rewrite(d relay.Direction, msg, scratch []byte) relay.Verdict {
	if e.copy {
		msg = append(scratch[:0], msg...)
	}
	return relay.Verdict{Msg: msg}
}

func (e echo) Wait(ctx context.Context, d relay.Direction, msg []byte) relay.Verdict {
	return relay.Verdict{Msg: msg}
}

func (e echo) Lane(relay.Direction, []byte) (int64, bool) { return 0, false }

// parker parks every message once.
type parker struct{ echo }

func (parker) Rewrite(relay.Direction, []byte, []byte) relay.Verdict {
	return relay.Verdict{Action: relay.Park}
}

func TestCallsPass(t *testing.T) {
	etcd := startEtcd(t)
	for name, codec := range map[string]relay.Codec{"raw": nil, "in place": echo{}, "copied": echo{copy: true}, "parked": parker{}} {
		t.Run(name, func(t *testing.T) {
			s := &session{route: func(string) relay.Route { return relay.Route{Codec: codec} }}
			c := dial(t, startRelay(t, etcd, relay.Config{Budget: relay.NewBudget(64 << 20)}, s))
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			big := bytes.Repeat([]byte("x"), 1<<20)
			prefix := name + "/"
			watch := c.Watch(ctx, prefix, clientv3.WithPrefix())
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					key := fmt.Sprintf("%s%02d", prefix, i)
					value := big
					if i%4 != 0 {
						value = []byte(key)
					}
					if _, err := c.Put(ctx, key, string(value)); err != nil {
						t.Errorf("put %s: %v", key, err)
						return
					}
					got, err := c.Get(ctx, key)
					if err != nil || len(got.Kvs) != 1 || !bytes.Equal(got.Kvs[0].Value, value) {
						t.Errorf("get %s: %v", key, err)
					}
				})
			}
			seen := 0
			for seen < 40 {
				r, ok := <-watch
				if !ok || r.Err() != nil {
					t.Fatalf("watch: %v", r.Err())
				}
				seen += len(r.Events)
			}
			wg.Wait()
			all, err := c.Get(ctx, prefix, clientv3.WithPrefix())
			if err != nil || len(all.Kvs) != 40 {
				t.Fatalf("list: %v", err)
			}
		})
	}
}
