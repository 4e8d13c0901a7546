package listen

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
)

// socketDir returns a directory with a path short enough for sockets, whatever the name of the test.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "es")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// stale leaves a socket behind on which nobody listens.
func stale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
}

// mustReach fails the test unless the listener itself answers on the path.
func mustReach(t *testing.T, l *Listener, path string) {
	t.Helper()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("accepting: %v", err)
	}
	_ = conn.Close()
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "etcd.sock")
	l := open(t, Config{Address: "unix://" + path})
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), os.ModeSocket|socketMode; got != want {
		t.Errorf("mode: got %s, want %s", got, want)
	}
	if got := l.Addr().String(); got != path {
		t.Errorf("address: got %s, want %s", got, path)
	}
	mustReach(t, l, path)
	if err := l.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	mustHold(t, filepath.Dir(path))
}

// mustHold fails the test unless the directory holds exactly these names.
func mustHold(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Fatalf("directory holds %v, want %v", entries, want)
	}
	for i, entry := range entries {
		if entry.Name() != want[i] {
			t.Errorf("directory holds %s, want %s", entry.Name(), want[i])
		}
	}
}

func TestUnixSocketWithTLS(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	cfg := tlsConfig(t, ca)
	path := filepath.Join(socketDir(t), "s")
	cfg.Address = "unix://" + path
	l := open(t, cfg)
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.Handshake(ctx, conn); err == nil {
		t.Error("a socket with certificates did no TLS handshake")
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	stale(t, path)
	l := open(t, Config{Address: "unix://" + path})
	mustReach(t, l, path)
	mustHold(t, filepath.Dir(path), "s")
}

func TestWhatIsInUseIsLeftAlone(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "s")
	l := open(t, Config{Address: "unix://" + path})
	if _, err := Open(t.Context(), Config{Address: "unix://" + path}); err == nil {
		t.Error("opened a socket on which somebody answers")
	}
	// The connection that tried it out is there first.
	tried, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = tried.Close()
	mustReach(t, l, path)

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Address: "unix://" + file}); err == nil {
		t.Error("opened a socket in place of a file")
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "precious" {
		t.Errorf("the file was touched: %q, %v", content, err)
	}
	mustHold(t, dir, "file", "s")
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	first := open(t, Config{Address: "unix://" + path})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := open(t, Config{Address: "unix://" + path})
	if err := first.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	mustReach(t, second, path)
}

// Of several processes that find the same stale socket, one gets it.
func TestOneWinsAStaleSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	stale(t, path)
	winners := make(chan *Listener, 8)
	var wg sync.WaitGroup
	for range cap(winners) {
		wg.Go(func() {
			if l, err := Open(t.Context(), Config{Address: "unix://" + path}); err == nil {
				winners <- l
			}
		})
	}
	wg.Wait()
	close(winners)
	if n := len(winners); n != 1 {
		t.Errorf("%d listeners share a path, want 1", n)
	}
	for l := range winners {
		_ = l.Close()
	}
}

func TestLongPathIsRefused(t *testing.T) {
	dir := filepath.Join(socketDir(t), "a-directory-with-a-name-that-is-so-long-that-no-socket-address-has-room-for-the-whole-of-it-and-more")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Address: "unix://" + filepath.Join(dir, "s")}); err == nil {
		t.Error("opened")
	}
	mustHold(t, dir)
}
