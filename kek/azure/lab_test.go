package azure_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

const (
	host     = "prod.vault.azure.net"
	clientID = "0a0a0a0a-1111-2222-3333-444444444444"
	secret   = "S3cr3t~of.the-client"
)

// pool holds the RSA keys of all tests, which take long to make.
var pool []*rsa.PrivateKey

func TestMain(m *testing.M) {
	for range 5 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		pool = append(pool, key)
	}
	os.Exit(m.Run())
}

// fromPool deals the pool out, to one emulator: its keys differ from each other.
func fromPool() func(int) (*rsa.PrivateKey, error) {
	var mu sync.Mutex
	next := 0
	return func(bits int) (*rsa.PrivateKey, error) {
		mu.Lock()
		defer mu.Unlock()
		if bits != 2048 || next == len(pool) {
			return rsa.GenerateKey(rand.Reader, bits)
		}
		next++
		return pool[next-1], nil
	}
}

// lab is an emulated vault with a key, and an application that may use it.
type lab struct {
	*emulator.Server
	vault *emulator.Vault
	dir   string
	log   *logBuffer
}

func newLab(t *testing.T) *lab {
	return newLabAt(t, emulator.VaultConfig{Host: host, PurgeProtection: true}, "RSA")
}

// newLabAt makes a lab with a vault; kty "" is one without a key.
func newLabAt(t *testing.T, cfg emulator.VaultConfig, kty string) *lab {
	t.Helper()
	server, err := emulator.New(emulator.Config{GenerateKey: fromPool()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	l := &lab{Server: server, vault: server.AddVault(cfg), dir: t.TempDir(), log: &logBuffer{}}
	if kty != "" {
		l.vault.CreateKey("etcd", kty, 0)
	}
	l.AddApp(emulator.App{ClientID: clientID, Secret: secret})
	l.write(t, "ca.pem", string(l.CA()))
	l.write(t, "secret", secret+"\n")
	return l
}

// write writes a file into the lab's directory and returns its path.
func (l *lab) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// config returns a configuration that works.
func (l *lab) config() azure.Config {
	return azure.Config{
		Name: "prod", VaultURL: l.vault.URL(), Key: "etcd", CAFile: filepath.Join(l.dir, "ca.pem"), Dial: l.Dial,
		Credential: azure.Credential{Type: azure.ClientSecret, TenantID: emulator.DefaultTenant, ClientID: clientID, SecretFile: filepath.Join(l.dir, "secret")},
		Logger:     slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// open opens a KEK; change may be nil.
func (l *lab) open(t *testing.T, change func(*azure.Config)) *azure.KEK {
	t.Helper()
	cfg := l.config()
	if change != nil {
		change(&cfg)
	}
	k, err := azure.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// logBuffer is what was logged.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testDEK is the DEK of most tests. It is found in any text by looking for a part
// of it.
var testDEK = []byte("0123456789-the-dek-0123456789-32")

// must wraps the test's DEK.
func must(t *testing.T, k kek.KEK) kek.Wrapping {
	t.Helper()
	w, err := k.Wrap(t.Context(), testDEK)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// opens checks that a wrapping holds the test's DEK.
func opens(t *testing.T, k kek.KEK, w kek.Wrapping) {
	t.Helper()
	got, err := k.Unwrap(t.Context(), w)
	if err != nil || string(got) != string(testDEK) {
		t.Errorf("unwrapping %v: %v, the DEK is right: %v", w, err, string(got) == string(testDEK))
	}
}

// wants checks an error's class and texts in it.
func wants(t *testing.T, what string, err error, class kek.Class, texts ...string) {
	t.Helper()
	if err == nil || kek.ClassOf(err) != class {
		t.Errorf("%s: %v (class %q), want the class %q", what, err, kek.ClassOf(err), class)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q does not hold %q", what, err, text)
		}
	}
}

// inBubble runs a test whose time is its own.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// trace returns a context with a trace.
func trace(t *testing.T) (context.Context, *kek.Trace) {
	var tr kek.Trace
	return kek.WithTrace(t.Context(), &tr), &tr
}

func asError(err error, e **kek.Error) bool { return errors.As(err, e) }
