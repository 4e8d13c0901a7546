package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/pki"
)

// TestEtcdUsers switches etcd's authentication on: each client acts as its own
// user, with etcd's own errors, and never with the rights of the proxy, which is
// a user itself.
func TestEtcdUsers(t *testing.T) {
	l := newLab(t, false)
	cfg := l.proxyConfig(t)
	const password = "e2e-password"
	for _, args := range [][]string{
		{"user", "add", "root:" + password},
		{"user", "grant-role", "root", "root"},
		{"user", "add", "reader:" + password},
		{"role", "add", "read-secrets"},
		{"role", "grant-permission", "--prefix", "read-secrets", "read", etcdseal.SecretsPrefix},
		{"user", "grant-role", "reader", "read-secrets"},
		{"auth", "enable"},
	} {
		l.etcd.Ctl(t, args...)
	}
	cfg.EtcdUser, cfg.EtcdPasswordFile = "root", filepath.Join(t.TempDir(), "password")
	cfg.Forbidden = append(cfg.Forbidden, password)
	if err := os.WriteFile(cfg.EtcdPasswordFile, []byte(password+"\n"), 0o600); err != nil {
		t.Fatalf("writing password: %v", err)
	}
	proxy := etcdseal.Start(t, cfg)
	as := func(user string) *clientv3.Client {
		cfg := proxy.ClientConfig(t, l.authority, pki.Files{})
		if user != "" {
			cfg.Username, cfg.Password = user, password
		}
		client, err := clientv3.New(cfg)
		if err != nil {
			t.Fatalf("logging in as %q: %v", user, err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	root, reader, nobody := as("root"), as("reader"), as("")

	const key = etcdseal.SecretsPrefix + "guarded"
	value := l.secret(t, "guarded", 10)
	if _, err := root.Put(call(t), key, string(value)); err != nil {
		t.Fatalf("putting as root: %v", err)
	}
	response, err := reader.Get(call(t), key)
	if err != nil || len(response.Kvs) != 1 || !bytes.Equal(response.Kvs[0].Value, value) {
		t.Errorf("getting as reader: %v (or another value)", err)
	}
	if _, err := reader.Put(call(t), key, "x"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("putting as reader: %v, want %v", err, rpctypes.ErrPermissionDenied)
	}
	if _, err := reader.Get(call(t), etcdseal.KeyringPrefix, clientv3.WithPrefix()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("getting the keyring as reader: %v, want %v", err, rpctypes.ErrPermissionDenied)
	}
	if _, err := nobody.Get(call(t), key); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("getting as nobody: %v, want %v", err, rpctypes.ErrUserEmpty)
	}
	l.etcd.Ctl(t, "--user=root:"+password, "auth", "disable")
	if _, err := etcd.EnvelopeID(etcd.Pairs(t, l.raw, key)[key]); err != nil {
		t.Errorf("stored value of %s: %v", key, err)
	}
	l.checkDEKs(t)
}
