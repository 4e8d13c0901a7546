package proxy_test

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/kek/local"
	"github.com/etcdseal/etcdseal/proxy"
	"github.com/etcdseal/etcdseal/proxy/listen"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

const sealedPrefix = "/registry/secrets/"

// lab is an etcd with a proxy in front of it, and a client of each.
type lab struct {
	etcdURL  string
	address  string
	direct   *clientv3.Client
	client   *clientv3.Client
	server   *proxy.Server
	keyring  *dek.Manager
	metrics  *prometheus.Registry
	fakeKEK  *kektest.Fake
	shutdown func()
}

// setup changes how a lab is made. The zero value seals sealedPrefix with a
// local KEK.
type setup struct {
	etcdURL   string // of an etcd that runs already
	upstream  string // where the proxy finds it, if elsewhere
	still     bool   // the keyring does not run: it hears of nothing by itself
	store     func(dek.Store) dek.Store
	logger    *slog.Logger
	rule      proxy.Rule
	open      bool // do not seal
	kek       *kektest.Fake
	keyFile   string
	allow     []string
	listen    listen.Config // without an address: plain TCP
	advertise []string
	grace     time.Duration // of a shutdown; 0 is 5 s
}

func newLab(t testing.TB, s setup) *lab {
	t.Helper()
	l := newLabWithoutClient(t, s)
	l.client = dial(t, l.address)
	return l
}

// newLabWithoutClient is for listeners that a plain client cannot connect to.
func newLabWithoutClient(t testing.TB, s setup) *lab {
	t.Helper()
	l := &lab{etcdURL: s.etcdURL, fakeKEK: s.kek}
	if l.etcdURL == "" {
		l.etcdURL = startEtcd(t)
	}
	etcd, err := etcdstore.Dial(etcdstore.Config{Endpoints: []string{l.etcdURL}})
	must(t, err)
	t.Cleanup(func() { etcd.Close() })
	var store dek.Store = etcd
	if s.store != nil {
		store = s.store(store)
	}
	l.keyring, err = dek.New(dek.Config{Store: store, Keyring: "test", KEKs: map[string]kek.KEK{"k": testKEK(t, s)}})
	must(t, err)
	t.Cleanup(l.keyring.Close)
	pool, err := upstream.New(upstream.Config{Endpoints: []string{cmp.Or(s.upstream, l.etcdURL)}})
	must(t, err)
	t.Cleanup(func() { pool.Close() })
	if s.listen.Address == "" {
		s.listen = listen.Config{Address: "127.0.0.1:0", Insecure: true}
	}
	ln, err := listen.Open(t.Context(), s.listen)
	must(t, err)
	l.address = ln.Addr().String()
	metrics := proxy.NewMetrics()
	l.metrics = prometheus.NewRegistry()
	l.metrics.MustRegister(metrics)
	l.server = proxy.New(proxy.Config{
		Listener: ln, Upstream: pool, Keyring: l.keyring, Reserved: etcdstore.DefaultPrefix,
		Rules: l.rules(t, s), Metrics: metrics, AllowMethods: s.allow, Advertise: s.advertise, ShutdownGrace: cmp.Or(s.grace, 5*time.Second),
		Logger: s.logger,
	})
	l.run(t, pool, s.still)
	l.direct = dial(t, l.etcdURL)
	return l
}

func testKEK(t testing.TB, s setup) kek.KEK {
	if s.kek != nil {
		return s.kek
	}
	file := s.keyFile
	if file == "" {
		file = filepath.Join(t.TempDir(), "kek.key")
		must(t, local.Generate(file))
	}
	k, err := local.New(local.Config{Name: "k", KeyFile: file})
	must(t, err)
	t.Cleanup(func() { k.Close() })
	return k
}

func (l *lab) rules(t testing.TB, s setup) *proxy.Rules {
	s.rule.Prefix = sealedPrefix
	if !s.open {
		sealer, err := l.keyring.Sealer("k", nil)
		must(t, err)
		s.rule.Sealer = sealer
	}
	return proxy.NewRules([]proxy.Rule{s.rule})
}

// run starts everything that runs, and ends it with the test.
func (l *lab) run(t testing.TB, pool *upstream.Pool, still bool) {
	ctx, cancel := context.WithCancel(context.Background())
	var done []chan error
	parts := []func(context.Context) error{pool.Run, l.server.Serve}
	if !still {
		parts = append(parts, l.keyring.Run)
	}
	for _, f := range parts {
		ended := make(chan error, 1)
		done = append(done, ended)
		go func() { ended <- f(ctx) }()
	}
	l.shutdown = func() {
		cancel()
		for _, d := range done {
			if err := <-d; err != nil && ctx.Err() == nil {
				t.Errorf("running: %v", err)
			}
			d <- nil
		}
	}
	t.Cleanup(l.shutdown)
}

func startEtcd(t testing.TB) string { t.Helper(); return startEtcdWith(t, nil) }

// startEtcdWith is startEtcd with services of the test's own, or a look at etcd's, and
// with more options of its gRPC server.
func startEtcdWith(t testing.TB, register func(*grpc.Server), options ...grpc.ServerOption) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.LogLevel = "fatal"
	cfg.UnsafeNoFsync = true
	cfg.GRPCAdditionalServerOptions = options
	cfg.ServiceRegister = register
	u, _ := url.Parse("http://127.0.0.1:0")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*u}, []url.URL{*u}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*u}, []url.URL{*u}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	must(t, err)
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return "http://" + e.Clients[0].Addr().String()
}

func dial(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// boundedFor is many times what any test takes on a machine with other work, under the
// race detector: it ends what hangs, and decides nothing else.
const boundedFor = 5 * time.Minute

// bounded returns a context that no test of this package should outlive.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), boundedFor)
	t.Cleanup(cancel)
	return ctx
}

// stored returns what etcd itself holds under a key.
func (l *lab) stored(t testing.TB, key string) []byte {
	t.Helper()
	r, err := l.direct.Get(bounded(t), key)
	must(t, err)
	if len(r.Kvs) == 0 {
		return nil
	}
	return r.Kvs[0].Value
}

func TestValuesAreSealedInEtcdAndPlainForClients(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	key := sealedPrefix + "default/a"
	watching := l.client.Watch(ctx, sealedPrefix, clientv3.WithPrefix(), clientv3.WithPrevKV())
	_, err := l.client.Put(ctx, key, "one")
	must(t, err)
	put, err := l.client.Put(ctx, key, "two", clientv3.WithPrevKV())
	must(t, err)
	if got := string(put.PrevKv.Value); got != "one" {
		t.Errorf("prev_kv of a put is %q", got)
	}
	_, err = l.client.Put(ctx, "/registry/configmaps/a", "open")
	must(t, err)
	raw := l.stored(t, key)
	if !envelope.Is(raw) || bytes.Contains(raw, []byte("two")) || len(raw) != len("two")+envelope.Overhead {
		t.Errorf("etcd holds %q", raw)
	}
	if raw := l.stored(t, "/registry/configmaps/a"); string(raw) != "open" {
		t.Errorf("etcd holds %q under a key without a rule", raw)
	}
	txn, err := l.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), ">", 0)).
		Then(clientv3.OpPut(key, "three", clientv3.WithPrevKV()), clientv3.OpGet(sealedPrefix, clientv3.WithPrefix()),
			clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(sealedPrefix+"b", "nested"), clientv3.OpGet(sealedPrefix + "b")}, nil)).Commit()
	must(t, err)
	if got := string(txn.Responses[0].GetResponsePut().PrevKv.Value); got != "two" {
		t.Errorf("prev_kv in a txn is %q", got)
	}
	if got := string(txn.Responses[1].GetResponseRange().Kvs[0].Value); got != "three" {
		t.Errorf("a range in a txn shows %q", got)
	}
	if got := string(txn.Responses[2].GetResponseTxn().Responses[1].GetResponseRange().Kvs[0].Value); got != "nested" {
		t.Errorf("a range in a nested txn shows %q", got)
	}
	del, err := l.client.Delete(ctx, sealedPrefix, clientv3.WithPrefix(), clientv3.WithPrevKV())
	must(t, err)
	if got := string(del.PrevKvs[0].Value) + string(del.PrevKvs[1].Value); got != "nestedthree" {
		t.Errorf("prev_kvs of a delete are %q", got)
	}
	var seen []string
	for len(seen) < 6 {
		for _, e := range (<-watching).Events {
			prev := ""
			if e.PrevKv != nil {
				prev = string(e.PrevKv.Value)
			}
			seen = append(seen, string(e.Kv.Value)+"<"+prev)
		}
	}
	want := []string{"one<", "two<one", "three<two", "nested<", "<nested", "<three"}
	for i := range want {
		if seen[i] != want[i] {
			t.Errorf("event %d is %q, want %q", i, seen[i], want[i])
		}
	}
}
