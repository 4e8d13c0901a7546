package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/binaries"
	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/pki"
)

const (
	// callLimit bounds one call that is expected to succeed at once.
	callLimit = 30 * time.Second
	// settleLimit bounds the wait for something that happens by itself: a
	// reconnect, a healed record, a reloaded file.
	settleLimit = 60 * time.Second
	// watchLimit bounds a watch that is open while parts are restarted or waited for,
	// each of which may take settleLimit.
	watchLimit = 4 * settleLimit
	// absenceLimit bounds one attempt at something that may not answer.
	absenceLimit = 3 * time.Second

	// firstRevision is the first revision at which a new etcd stores anything.
	firstRevision = 2
)

// The programs are built once for the whole run, and only those that the
// selected tests need.
var (
	buildOthers = sync.OnceValues(func() (string, error) {
		return binaries.Build(context.Background(), os.Stderr,
			binaries.Etcd, binaries.Etcdctl, binaries.Etcdutl, binaries.KubeAPIServer)
	})
	buildOldEtcds = sync.OnceValues(func() (string, error) {
		return binaries.Build(context.Background(), os.Stderr, binaries.Etcd36, binaries.Etcd35)
	})
	buildEtcdseal = sync.OnceValues(func() (string, error) {
		return binaries.Build(context.Background(), os.Stderr, binaries.Etcdseal)
	})
)

// lab is what one test works with: its authority, one etcd, and a text that
// every secret of the test holds, so that it can be looked for where no
// plaintext may be.
type lab struct {
	binaries  string
	authority *pki.Authority
	etcd      *etcd.Server
	raw       *clientv3.Client // of etcd itself
	marker    string
	kek       string
	accounts  *apiserver.AccountKey
}

// newLab starts an etcd, with mutual TLS if secure is set.
func newLab(t *testing.T, secure bool) *lab {
	t.Helper()
	return newVersionLab(t, "", secure)
}

// newVersionLab is newLab with an earlier version of etcd; empty means the newest.
func newVersionLab(t *testing.T, version string, secure bool) *lab {
	t.Helper()
	if version != "" {
		if _, err := buildOldEtcds(); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := buildOthers()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		binaries:  folder,
		authority: pki.NewAuthority(t, "e2e authority"),
		accounts:  apiserver.NewAccountKey(t),
	}
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		t.Fatalf("making marker: %v", err)
	}
	l.marker = "e2e-plaintext-" + hex.EncodeToString(random)
	cfg := etcd.Config{Binaries: folder, Version: version}
	if secure {
		cfg.Authority = l.authority
	}
	l.etcd = etcd.Start(t, cfg)
	l.raw = l.etcd.Client(t)
	return l
}

// proxyConfig is the configuration of a proxy in front of the lab's etcd that
// listens in plain text on loopback. All proxies of a lab have one KEK.
func (l *lab) proxyConfig(t *testing.T) etcdseal.Config {
	t.Helper()
	if _, err := buildEtcdseal(); err != nil {
		t.Fatal(err)
	}
	if l.kek == "" {
		l.kek = etcdseal.NewKEK(t, l.binaries)
	}
	cfg := etcdseal.Config{
		Binaries:  l.binaries,
		KEKFile:   l.kek,
		Endpoints: []string{l.etcd.Endpoint()},
		Forbidden: []string{l.marker},
	}
	if l.etcd.Secure() {
		cfg.EtcdCAFile = l.authority.CAFile()
		cfg.EtcdTLS = l.authority.NamelessClient(t, "etcdseal")
	}
	return cfg
}

// secureProxyConfig is proxyConfig with a listener that asks for client
// certificates.
func (l *lab) secureProxyConfig(t *testing.T) etcdseal.Config {
	t.Helper()
	cfg := l.proxyConfig(t)
	cfg.ListenTLS = l.authority.Server(t, "etcdseal-server")
	cfg.ClientCAFile = l.authority.CAFile()
	return cfg
}

// secret is a plaintext of at least size bytes with the lab's marker at its
// beginning and its end.
func (l *lab) secret(t *testing.T, label string, size int) []byte {
	t.Helper()
	value := []byte(l.marker + " " + label + " ")
	filler := make([]byte, size)
	if _, err := rand.Read(filler); err != nil {
		t.Fatalf("making secret: %v", err)
	}
	return append(append(value, filler...), l.marker...)
}

// checkDEKs demands that the DEK of every envelope in etcd is recorded, and
// returns the number of envelopes.
func (l *lab) checkDEKs(t *testing.T) int {
	t.Helper()
	envelopes, err := etcd.CheckDEKs(t, l.raw, etcdseal.KeyringPrefix)
	if err != nil {
		t.Errorf("what etcd holds now: %v", err)
	}
	return envelopes
}

// call is a context for one call of the test.
func call(t *testing.T) context.Context {
	t.Helper()
	return within(t, callLimit)
}

// within is a context that ends with the test, or after limit.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}
