package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/migrate"
)

const prefix = "/registry/secrets/"

// lab is a real etcd of one member, and what is in it.
type lab struct {
	*testing.T
	dir       string // of the member's data
	endpoint  string
	endpoints []string // of a cluster
	configure func(*embed.Config)
	server    *embed.Etcd
	client    *clientv3.Client
}

func newLab(t *testing.T, configure ...func(*embed.Config)) *lab {
	t.Helper()
	root, err := os.MkdirTemp("", "migrate") // shorter than t.TempDir, for a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{T: t, dir: filepath.Join(root, "data"), endpoint: "unix://" + filepath.Join(root, "s.sock")}
	l.configure = func(c *embed.Config) {
		for _, f := range configure {
			f(c)
		}
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	l.start()
	return l
}

func (l *lab) start() {
	l.Helper()
	client, err := url.Parse(l.endpoint)
	if err != nil {
		l.Fatal(err)
	}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c := embed.NewConfig()
	c.Dir = l.dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.UnsafeNoFsync = true
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	l.configure(c)
	if l.server, err = embed.StartEtcd(c); err != nil {
		l.Fatalf("starting etcd: %v", err)
	}
	l.Cleanup(l.stop)
	select {
	case <-l.server.Server.ReadyNotify():
	case err := <-l.server.Err():
		l.Fatalf("starting etcd: %v", err)
	}
	if l.client, err = migrate.Dial(migrate.DialConfig{Endpoints: []string{l.endpoint}}); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = l.client.Close() })
}

func (l *lab) stop() {
	if l.server != nil {
		l.server.Close()
		l.server = nil
	}
}

func (l *lab) put(key, value string, opts ...clientv3.OpOption) {
	l.Helper()
	if _, err := l.client.Put(l.Context(), key, value, opts...); err != nil {
		l.Fatalf("putting %s: %v", key, err)
	}
}

// process is an etcdseal's use of the keyring.
type process struct {
	manager *dek.Manager
	store   dek.Store
	sealer  *dek.Sealer
	kek     *kektest.Fake
}

// process starts one with its own DEKs and the same KEK.
func (l *lab) process() *process {
	l.Helper()
	store, err := etcdstore.Dial(etcdstore.Config{Endpoints: []string{l.endpoint}})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = store.Close() })
	fake := kektest.NewFake("k", "1")
	manager, err := dek.New(dek.Config{Store: store, Keyring: "test", KEKs: map[string]kek.KEK{"k": fake}})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(manager.Close)
	sealer, err := manager.Sealer("k", nil)
	if err != nil {
		l.Fatal(err)
	}
	return &process{manager, store, sealer, fake}
}

// engine returns an engine of a process, sealing or not.
func (l *lab) engine(p *process, seal bool, change ...func(*migrate.Config)) *migrate.Engine {
	l.Helper()
	rule := migrate.Rule{Prefix: prefix}
	if seal {
		rule.Sealer = p.sealer
	}
	c := migrate.Config{
		KV: l.client, Maintenance: l.client, Endpoints: []string{l.endpoint},
		Keyring: p.manager, Store: p.store, Rules: []migrate.Rule{rule}, Reserved: "/etcdseal/",
	}
	for _, f := range change {
		f(&c)
	}
	e, err := migrate.New(c)
	if err != nil {
		l.Fatal(err)
	}
	return e
}

// run does a job that has to end well.
func (l *lab) run(e *migrate.Engine, job migrate.Job) *migrate.Result {
	l.Helper()
	result, err := e.Run(l.Context(), job)
	if err != nil {
		l.Fatal(err)
	}
	for _, p := range result.Problems {
		l.Errorf("%s: %v", p.Key, p.Err)
	}
	return result
}

// opened returns a stored value's plaintext and whether it was sealed.
func (l *lab) opened(p *process, key string, value []byte) (string, bool) {
	l.Helper()
	plain, sealed, err := open(l.Context(), p, key, value)
	if err != nil {
		l.Fatalf("opening %s: %v", key, err)
	}
	return plain, sealed
}

func open(ctx context.Context, p *process, key string, value []byte) (string, bool, error) {
	id, err := envelope.Parse(value)
	if errors.Is(err, envelope.ErrNotEnvelope) {
		return string(value), false, nil
	}
	if err != nil {
		return "", false, err
	}
	k, err := p.manager.OpenKey(ctx, id)
	if err != nil {
		return "", false, err
	}
	plain, err := k.OpenTo(nil, value, []byte(key))
	return string(plain), true, err
}

// values returns what is under the prefix, opened, and how many of them are sealed.
func (l *lab) values(p *process) (map[string]string, int) {
	l.Helper()
	answer, err := l.client.Get(l.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		l.Fatal(err)
	}
	all, sealed := map[string]string{}, 0
	for _, kv := range answer.Kvs {
		plain, is := l.opened(p, string(kv.Key), kv.Value)
		all[string(kv.Key)] = plain
		if is {
			sealed++
		}
	}
	return all, sealed
}

// fill puts n plaintext values.
func (l *lab) fill(n int) map[string]string {
	l.Helper()
	all := map[string]string{}
	for i := range n {
		key := fmt.Sprintf("%sns/%05d", prefix, i)
		all[key] = fmt.Sprintf("hunter2-%d", i)
		l.put(key, all[key])
	}
	return all
}

// records fails the test if any revision since compaction holds a sealed value whose
// DEK's record was not there at that revision.
func (l *lab) records() {
	l.Helper()
	answer, err := l.client.Get(l.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		l.Fatal(err)
	}
	for _, kv := range answer.Kvs {
		id, err := envelope.Parse(kv.Value)
		if err != nil {
			continue
		}
		record, err := l.client.Get(l.Context(), "/etcdseal/dek/"+id.String(), clientv3.WithRev(kv.ModRevision))
		if err != nil {
			l.Fatal(err)
		}
		if len(record.Kvs) == 0 {
			l.Errorf("%s was sealed at revision %d without the record of its DEK", kv.Key, kv.ModRevision)
		}
	}
}

// hooked is an etcd whose transactions a test disturbs.
type hooked struct {
	clientv3.KV
	mu     sync.Mutex // held while a hook runs, and guards n
	n      int
	before func(n int) error // of the n-th; an error is the answer, and nothing is done
	after  func(n int) error // an error is the answer though it was carried out
}

func (h *hooked) Txn(ctx context.Context) clientv3.Txn { return &hookedTxn{h.KV.Txn(ctx), h} }

type hookedTxn struct {
	clientv3.Txn
	h *hooked
}

func (t *hookedTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *hookedTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *hookedTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *hookedTxn) Commit() (*clientv3.TxnResponse, error) {
	n, err := t.h.begin()
	if err != nil {
		return nil, err
	}
	answer, err := t.Txn.Commit()
	if err == nil {
		err = t.h.end(n)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (h *hooked) begin() (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	if h.before != nil {
		err = h.before(h.n)
	}
	return h.n, err
}

func (h *hooked) end(n int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.after == nil {
		return nil
	}
	return h.after(n)
}

func contains(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
}
