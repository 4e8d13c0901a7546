package difftest

import (
	"bytes"
	"context"
	"net/url"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/crypto/dek/filestore"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/local"
	"github.com/etcdseal/etcdseal/proxy"
	"github.com/etcdseal/etcdseal/proxy/listen"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// TestEtcdsealEqualsEtcd is the promise of the whole proxy: what clients see is what a plain etcd would have told them, and what etcd holds under the
// rule is envelopes. The keyring is in a file, since its records in etcd would take revisions.
func TestEtcdsealEqualsEtcd(t *testing.T) {
	behind := startEtcd(t)
	subject := dial(t, startEtcdseal(t, behind))
	err := Run(t.Context(), Config{
		Reference: dial(t, startEtcd(t)), Subject: subject, Sealed: sealed, SealedValueOrder: true,
		Seed: *seed, Operations: *operations, Logf: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{sealed + "last", "zoo/last"} {
		_, err := pb.NewKVClient(subject).Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
		must(t, err)
	}
	checkStored(t, dial(t, behind))
}

// startEtcdseal starts one that needs no user of etcd.
func startEtcdseal(t *testing.T, etcd string) string {
	t.Helper()
	return startEtcdsealWith(t, etcd, etcdstore.DefaultPrefix, upstream.Auth{})
}

// startEtcdsealWith is startEtcdseal with another reserved prefix and a user for its own
// calls. Without a prefix nothing is asked of etcd on a new connection. It serves in this
// process until the test ends; the URL of its socket is returned.
func startEtcdsealWith(t *testing.T, etcd, reserved string, auth upstream.Auth) string {
	t.Helper()
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "kek.key")
	must(t, local.Generate(keyFile))
	key, err := local.New(local.Config{Name: "test", KeyFile: keyFile})
	must(t, err)
	t.Cleanup(func() { closeConn(key) })
	store, err := filestore.Open(filepath.Join(dir, "keyring.json"))
	must(t, err)
	keyring, err := dek.New(dek.Config{Store: store, Keyring: "test", KEKs: map[string]kek.KEK{"test": key}})
	must(t, err)
	t.Cleanup(keyring.Close)
	sealer, err := keyring.Sealer("test", nil)
	must(t, err)
	pool, err := upstream.New(upstream.Config{Endpoints: []string{etcd}, Auth: auth})
	must(t, err)
	t.Cleanup(func() { closeConn(pool) })
	socket := url.URL{Scheme: "unix", Path: filepath.Join(socketDir(t), "etcdseal")}
	listener, err := listen.Open(t.Context(), listen.Config{Address: socket.String()})
	must(t, err)
	server := proxy.New(proxy.Config{
		Listener: listener, Upstream: pool, Keyring: keyring, Reserved: reserved,
		Rules: proxy.NewRules([]proxy.Rule{{Prefix: sealed, Sealer: sealer}}),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	for _, run := range []func(context.Context) error{pool.Run, keyring.Run, server.Serve} {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Errorf("running etcdseal: %v", err)
			}
		}
	})
	return socket.String()
}

// checkStored looks at what the etcd behind the proxy holds. Outside the rule are values that look like envelopes as well.
func checkStored(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	all, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	must(t, err)
	under, plain := 0, 0
	for _, kv := range all.Kvs {
		isSealed := bytes.HasPrefix(kv.Key, []byte(sealed)) && !bytes.HasPrefix(kv.Key, []byte(sealed+"lock/")) // etcd's locks are empty
		if isSealed {
			under++
		}
		if _, err := envelope.Parse(kv.Value); isSealed && err != nil {
			t.Errorf("etcd holds no envelope under %q: %v", kv.Key, err)
		} else if err != nil {
			plain++
		}
	}
	if under == 0 || plain == 0 {
		t.Errorf("etcd holds %d values under the rule and %d others that are no envelopes at the end, want some of both", under, plain)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
