package kmsv2

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// patient is a timeout that no test reaches.
const patient = time.Minute

// never is a poll interval that no test reaches.
const never = 24 * time.Hour

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "kms.sock")
}

// serve serves a plugin until the test ends or stop is called.
func serve(t *testing.T, p service.Service, socket string) (stop func()) {
	t.Helper()
	stop, err := kmstest.Serve(p, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return stop
}

func open(t *testing.T, cfg Config) *KEK {
	t.Helper()
	cfg.Name = "plugin"
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// lab is a plugin on a socket, and a KEK of it whose background polls are over after
// the first.
type lab struct {
	*kmstest.Plugin
	kek    *KEK
	socket string
	stop   func()
	log    *bytes.Buffer
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{Plugin: kmstest.New("secret", "key-1"), socket: socketPath(t), log: &bytes.Buffer{}}
	l.stop = serve(t, l.Plugin, l.socket)
	l.kek = open(t, Config{Endpoint: "unix://" + l.socket, Timeout: patient, PollInterval: never,
		Logger: slog.New(slog.NewJSONHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	return l
}

func newDEK() []byte { return bytes.Repeat([]byte{0xd5, 'k', 0x01, '"'}, kek.DEKSize/4) }

func (l *lab) wrap(t *testing.T) kek.Wrapping {
	t.Helper()
	w, err := l.kek.Wrap(t.Context(), newDEK())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func wantClass(t *testing.T, what string, err error, want kek.Class, texts ...string) {
	t.Helper()
	if got := kek.ClassOf(err); got != want {
		t.Errorf("%s: %v: class %q, want %q", what, err, got, want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%s: %q does not say %q", what, err, text)
		}
	}
}
