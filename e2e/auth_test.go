package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/pki"
	"github.com/etcdseal/etcdseal/e2e/poll"
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

// TestPasswordChanged gives the proxy's own user another password, in etcd, which
// ends its tokens, and in the file. The keyring must go on without a restart: a
// record that is deleted afterwards is put back.
func TestPasswordChanged(t *testing.T) {
	l := newLab(t, false)
	const before, after = "e2e-password-before", "e2e-password-after"
	for _, args := range [][]string{{"user", "add", "root:" + before}, {"user", "grant-role", "root", "root"}, {"auth", "enable"}} {
		l.etcd.Ctl(t, args...)
	}
	login := func(password string) *clientv3.Client {
		t.Helper()
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{l.etcd.Endpoint()}, Username: "root", Password: password, Logger: zap.NewNop()})
		if err != nil {
			t.Fatalf("logging in to etcd: %v", err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	cfg := l.proxyConfig(t)
	cfg.EtcdUser, cfg.EtcdPasswordFile = "root", filepath.Join(t.TempDir(), "password")
	cfg.Forbidden = append(cfg.Forbidden, before, after)
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(cfg.EtcdPasswordFile, []byte(password+"\n"), 0o600); err != nil {
			t.Fatalf("writing password: %v", err)
		}
	}
	write(before)
	proxy := etcdseal.Start(t, cfg)
	clientConfig := proxy.ClientConfig(t, l.authority, pki.Files{})
	clientConfig.Username, clientConfig.Password = "root", before
	client, err := clientv3.New(clientConfig)
	if err != nil {
		t.Fatalf("logging in through the proxy: %v", err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if _, err := client.Put(call(t), etcdseal.SecretsPrefix+"a", string(l.secret(t, "a", 10))); err != nil {
		t.Fatalf("putting: %v", err)
	}

	write(after)
	if _, err := login(before).UserChangePassword(call(t), "root", after); err != nil {
		t.Fatalf("changing password: %v", err)
	}
	raw := login(after)
	keyring := etcd.ReadKeyring(t, raw, etcdseal.KeyringPrefix)
	if _, err := raw.Delete(call(t), etcdseal.KeyringPrefix, clientv3.WithPrefix()); err != nil || len(keyring) != 1 {
		t.Fatalf("deleting the keyring of %d records: %v", len(keyring), err)
	}
	poll.Until(t, settleLimit, "the record to be put back", func(context.Context) error {
		return atLeast(len(etcd.ReadKeyring(t, raw, etcdseal.KeyringPrefix)), 1)
	})
	proxy.WaitReady(t)
}
