package etcdstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// enableAuth switches authentication on. The password of both users, root and nobody, is
// secret.
func (s *server) enableAuth() {
	s.t.Helper()
	client, ctx := s.client(), s.t.Context()
	for _, step := range []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(ctx, "nobody", "secret"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// login returns a store that logs in as the proxy does, with the password in a file.
func (s *server) login(user, password string) (store dek.Store, passwordFile string) {
	s.t.Helper()
	passwordFile = filepath.Join(s.t.TempDir(), "password")
	writeFile(s.t, passwordFile, password)
	pool, err := upstream.New(upstream.Config{Endpoints: []string{s.endpoint}, Auth: upstream.Auth{Username: user, PasswordFile: passwordFile}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = pool.Close() })
	store, err = etcdstore.Dial(etcdstore.Config{Endpoints: []string{s.endpoint}, Tokens: pool})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = store.Close() })
	return store, passwordFile
}

func writeFile(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.enableAuth()
	root, _ := s.login("root", "secret")
	if _, err := root.Create(t.Context(), dektest.ID(1), dektest.Record(dektest.ID(1), 1)); err != nil {
		t.Errorf("Create as root: %v", err)
	}
	changes, _, _ := follow(t, root)
	<-changes
	if _, err := root.Create(t.Context(), dektest.ID(2), dektest.Record(dektest.ID(2), 1)); err != nil {
		t.Errorf("Create as root: %v", err)
	}
	if c := <-changes; len(c.Records) != 1 {
		t.Errorf("Watch as root: got %+v", c)
	}
	wrong, _ := s.login("root", "wrong")
	nobody, _ := s.login("nobody", "secret")
	for name, store := range map[string]dek.Store{"wrong password": wrong, "no right": nobody} {
		if _, err := store.Get(t.Context(), dektest.ID(1)); err == nil || errors.Is(err, dek.ErrStoreUnavailable) {
			t.Errorf("%s: got %v, want an error that says that asking again does not help", name, err)
		}
	}
}

// TestPasswordChanges gives a store's user another password, which ends its token, and
// writes it to the file.
func TestPasswordChanges(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.enableAuth()
	store, passwordFile := s.login("root", "secret")
	changes, _, _ := follow(t, store)
	<-changes
	writeFile(t, passwordFile, "another\n")
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint}, Username: "root", Password: "secret", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	if _, err := admin.UserChangePassword(t.Context(), "root", "another"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Create(t.Context(), dektest.ID(1), dektest.Record(dektest.ID(1), 1)); err != nil {
		t.Errorf("Create: %v", err)
	}
	if c := <-changes; len(c.Records) != 1 {
		t.Errorf("Watch: got %+v", c)
	}
	again, _, _ := follow(t, store)
	if c := <-again; len(c.Records) != 1 {
		t.Errorf("another Watch: got %+v", c)
	}
}
