package kmsv2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
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

func TestConformance(t *testing.T) {
	socket := socketPath(t)
	serve(t, kmstest.New("secret", "key-1"), socket)
	kektest.Run(t, func(t *testing.T) kek.KEK {
		return open(t, Config{Endpoint: "unix://" + socket, Timeout: patient})
	})
}

func TestConformanceAbstractSocket(t *testing.T) {
	name := fmt.Sprintf("@etcdseal-kmsv2-%d", os.Getpid())
	serve(t, kmstest.New("secret", "key-1"), name)
	kektest.Run(t, func(t *testing.T) kek.KEK {
		return open(t, Config{Endpoint: "unix:///" + name, Timeout: patient})
	})
}

// What the plugin gave with a wrapping it gets back, whatever key it has by then.
func TestUnwrapGivesBackKeyIDAndAnnotations(t *testing.T) {
	l := newLab(t)
	id := "naïve \"key\"\n\x00" + strings.Repeat("x", maxKeyID-15)
	l.Rotate(id)
	w, err := l.kek.Wrap(t.Context(), newDEK())
	if err != nil {
		t.Fatal(err)
	}
	if w.Version != id || len(w.Annotations[kmstest.Annotation]) == 0 || w.Algorithm != Algorithm {
		t.Errorf("%v has %d annotations", w, len(w.Annotations))
	}
	l.Rotate("key-2")
	got, err := l.kek.Unwrap(t.Context(), w)
	if err != nil || !bytes.Equal(got, newDEK()) {
		t.Errorf("Unwrap: %v", err)
	}
}

// Each request has a UID of its own, in the form of a UUID.
func TestUIDs(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	for range 3 {
		if _, err := l.kek.Unwrap(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for _, uid := range l.UIDs() {
		if seen[uid] || len(uid) != 36 || uid[14] != '4' || strings.Count(uid, "-") != 4 {
			t.Errorf("UID %q, seen before: %v", uid, seen[uid])
		}
		seen[uid] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d UIDs, want 4", len(seen))
	}
}

// A status that kube-apiserver would not take makes Wrap and Version fail until it is
// good again; Unwrap goes on.
func TestBadStatus(t *testing.T) {
	for _, tt := range []struct {
		name string
		hook func(*service.StatusResponse) error
		want kek.Class
		text string
	}{
		{"v2beta1", func(s *service.StatusResponse) error { s.Version = "v2beta1"; return nil }, 0, ""},
		{"v1", func(s *service.StatusResponse) error { s.Version = "v1beta1"; return nil }, kek.Unavailable, `version "v1beta1"`},
		{"no version", func(s *service.StatusResponse) error { s.Version = ""; return nil }, kek.Unavailable, `version ""`},
		{"unhealthy", func(s *service.StatusResponse) error {
			s.Healthz = "no\x1b[2J\ntoken" + strings.Repeat("y", 1000)
			return nil
		},
			kek.Unavailable, `"no[2Jtokenyyy`},
		{"no healthz", func(s *service.StatusResponse) error { s.Healthz = ""; return nil }, kek.Unavailable, "not well"},
		{"no key id", func(s *service.StatusResponse) error { s.KeyID = ""; return nil }, kek.Unavailable, "no key id"},
		{"longest key id", func(s *service.StatusResponse) error { s.KeyID = strings.Repeat("k", 1024); return nil }, 0, ""},
		{"long key id", func(s *service.StatusResponse) error { s.KeyID = strings.Repeat("k", 1025); return nil },
			kek.Unavailable, "1025 bytes, 1024 are allowed"},
		{"huge", func(s *service.StatusResponse) error { s.Healthz = strings.Repeat("k", 1<<20); return nil },
			kek.Unavailable, "more than 131072 bytes"},
		{"denied", func(*service.StatusResponse) error { return status.Error(codes.PermissionDenied, "no") }, kek.Denied, "PermissionDenied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			w := l.wrap(t)
			l.Hook(kmstest.Hooks{Status: func(_ context.Context, s *service.StatusResponse) error { return tt.hook(s) }})
			k := open(t, Config{Endpoint: "unix://" + l.socket, Timeout: patient, PollInterval: never})
			_, err := k.Version(t.Context())
			wantClass(t, "Version", err, tt.want, tt.text)
			if len(fmt.Sprint(err)) > 600 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if _, err := k.Unwrap(t.Context(), w); err != nil {
				t.Errorf("Unwrap: %v", err)
			}
			if tt.want == 0 {
				return
			}
			_, err = k.Wrap(t.Context(), newDEK())
			wantClass(t, "Wrap", err, tt.want, tt.text)
			l.Hook(kmstest.Hooks{})
			if _, err := k.Wrap(t.Context(), newDEK()); err != nil {
				t.Errorf("Wrap, when the plugin is well again: %v", err)
			}
		})
	}
}

// Answers to Encrypt are held to kube-apiserver's limits.
func TestEncryptLimits(t *testing.T) {
	annotate := func(name string, value int) func(*service.EncryptResponse) {
		return func(a *service.EncryptResponse) { a.Annotations = map[string][]byte{name: make([]byte, value)} }
	}
	for _, tt := range []struct {
		name   string
		change func(*service.EncryptResponse)
		text   string // empty if it is taken
	}{
		{"longest ciphertext", func(a *service.EncryptResponse) { a.Ciphertext = make([]byte, 1024) }, ""},
		{"long ciphertext", func(a *service.EncryptResponse) { a.Ciphertext = make([]byte, 1025) }, "1025 bytes, 1024 are allowed"},
		{"no ciphertext", func(a *service.EncryptResponse) { a.Ciphertext = nil }, "no ciphertext"},
		{"no key id", func(a *service.EncryptResponse) { a.KeyID = "" }, "no key id"},
		{"long key id", func(a *service.EncryptResponse) { a.KeyID = strings.Repeat("x", 1025) }, "1025 bytes"},
		{"no annotations", func(a *service.EncryptResponse) { a.Annotations = nil }, ""},
		{"an empty annotation", annotate("a.example", 0), ""},
		{"most annotations", annotate("a.example", 32<<10-9), ""},
		{"too many annotations", annotate("a.example", 32<<10-8), "32769 bytes, 32768 are allowed"},
		{"no domain", annotate("example", 1), "not a fully qualified domain name"},
		{"upper case", annotate("A.example", 1), "not a fully qualified domain name"},
		{"huge", annotate("a.example", 8<<20), "more than 131072 bytes"},
		{"the DEK itself", func(a *service.EncryptResponse) { a.Ciphertext = append([]byte{1}, newDEK()...) }, "does not encrypt"},
		{"the DEK in an annotation", func(a *service.EncryptResponse) { a.Annotations["a.example"] = newDEK() }, "does not encrypt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.Hook(kmstest.Hooks{Encrypt: func(_ context.Context, a *service.EncryptResponse) error { tt.change(a); return nil }})
			w, err := l.kek.Wrap(t.Context(), newDEK())
			if tt.text == "" {
				if err != nil {
					t.Error(err)
				}
				for name, value := range w.Annotations {
					if value == nil {
						t.Errorf("annotation %s is nil, which a record cannot hold", name)
					}
				}
				return
			}
			wantClass(t, "Wrap", err, kek.Unavailable, tt.text)
		})
	}
}

// A DEK of the wrong size is refused, whoever sent it.
func TestDecryptSizes(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	for _, size := range []int{0, 31, 33, 1 << 20} {
		l.Hook(kmstest.Hooks{Decrypt: func(_ context.Context, _ *service.DecryptRequest, p *[]byte) error {
			*p = make([]byte, size)
			return nil
		}})
		want, text := kek.Corrupt, fmt.Sprintf("decrypts to %d bytes", size)
		if size > maxMessage {
			want, text = kek.Unavailable, "more than"
		}
		got, err := l.kek.Unwrap(t.Context(), w)
		wantClass(t, fmt.Sprintf("%d bytes", size), err, want, text)
		if got != nil {
			t.Errorf("%d bytes: Unwrap returns %d bytes", size, len(got))
		}
	}
}

// What no plugin can have made is Corrupt without asking one.
func TestUnwrapStrict(t *testing.T) {
	l := newLab(t)
	good := l.wrap(t)
	before := l.Calls("Decrypt")
	for name, change := range map[string]func(*kek.Wrapping){
		"algorithm":       func(w *kek.Wrapping) { w.Algorithm = "kmsv2" },
		"no version":      func(w *kek.Wrapping) { w.Version = "" },
		"long version":    func(w *kek.Wrapping) { w.Version = strings.Repeat("v", 1025) },
		"not UTF-8":       func(w *kek.Wrapping) { w.Version = "\xff" },
		"no bytes":        func(w *kek.Wrapping) { w.Ciphertext = nil },
		"many bytes":      func(w *kek.Wrapping) { w.Ciphertext = make([]byte, 1025) },
		"annotation name": func(w *kek.Wrapping) { w.Annotations = map[string][]byte{"x": nil} },
		"not UTF-8 name":  func(w *kek.Wrapping) { w.Annotations = map[string][]byte{"x.\xff": nil} },
		"annotations":     func(w *kek.Wrapping) { w.Annotations = map[string][]byte{"a.b": make([]byte, 32<<10)} },
	} {
		w := good
		change(&w)
		_, err := l.kek.Unwrap(t.Context(), w)
		wantClass(t, name, err, kek.Corrupt)
	}
	if n := l.Calls("Decrypt") - before; n != 0 {
		t.Errorf("the plugin was asked %d times", n)
	}
}

// What another plugin wrapped is not opened, and that says nothing of the key.
func TestAnotherPluginsCiphertext(t *testing.T) {
	l := newLab(t)
	other := &lab{Plugin: kmstest.New("another secret", "key-1"), socket: socketPath(t)}
	serve(t, other.Plugin, other.socket)
	other.kek = open(t, Config{Endpoint: "unix://" + other.socket, Timeout: patient})
	_, err := l.kek.Unwrap(t.Context(), other.wrap(t))
	wantClass(t, "Unwrap", err, kek.Unavailable, "Unknown", "message authentication failed")
}

func TestClasses(t *testing.T) {
	for code := codes.OK + 1; code <= codes.Unauthenticated; code++ {
		wrap, unwrap := kek.Unavailable, kek.Unavailable
		switch code {
		case codes.PermissionDenied:
			wrap, unwrap = kek.Denied, kek.Denied
		case codes.FailedPrecondition:
			wrap, unwrap = kek.Disabled, kek.Disabled
		case codes.NotFound:
			wrap, unwrap = kek.NotFound, kek.NotFound
		case codes.ResourceExhausted:
			wrap, unwrap = kek.Throttled, kek.Throttled
		case codes.InvalidArgument, codes.OutOfRange, codes.DataLoss:
			unwrap = kek.Corrupt
		}
		t.Run(code.String(), func(t *testing.T) {
			l := newLab(t)
			w := l.wrap(t)
			said := status.Error(code, "said so")
			l.Hook(kmstest.Hooks{
				Encrypt: func(context.Context, *service.EncryptResponse) error { return said },
				Decrypt: func(context.Context, *service.DecryptRequest, *[]byte) error { return said },
			})
			wraps, unwraps := l.Calls("Encrypt"), l.Calls("Decrypt")
			_, err := l.kek.Wrap(t.Context(), newDEK())
			wantClass(t, "Wrap", err, wrap)
			_, err = l.kek.Unwrap(t.Context(), w)
			wantClass(t, "Unwrap", err, unwrap)
			want := 1
			switch code {
			case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
				want = 2
			}
			if wraps, unwraps = l.Calls("Encrypt")-wraps, l.Calls("Decrypt")-unwraps; wraps != want || unwraps != want {
				t.Errorf("%d and %d tries, want %d", wraps, unwraps, want)
			}
		})
	}
}

// A plugin's text is cut, stripped, and withheld if it holds what was sent.
func TestPluginTexts(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	for _, form := range []string{"%s", "%x", "%X", "%v", "%q", "%#v"} {
		l.Hook(kmstest.Hooks{Decrypt: func(_ context.Context, r *service.DecryptRequest, _ *[]byte) error {
			return fmt.Errorf("cannot decrypt "+form, r.Ciphertext)
		}})
		_, err := l.kek.Unwrap(t.Context(), w)
		wantClass(t, form, err, kek.Unavailable)
		if !strings.Contains(err.Error(), "withheld") {
			t.Errorf("%s: %v", form, err)
		}
	}
	l.Hook(kmstest.Hooks{Decrypt: func(context.Context, *service.DecryptRequest, *[]byte) error {
		return errors.New("a\x1b[31m\r\n\u202eb" + strings.Repeat("é", 1000))
	}})
	_, err := l.kek.Unwrap(t.Context(), w)
	want := `a[31mb` + strings.Repeat("é", 97) + `..."`
	if !strings.HasSuffix(fmt.Sprint(err), want) {
		t.Errorf("got %v, want it to end with %s", err, want)
	}
	for _, secret := range []string{string(newDEK()[:8]), fmt.Sprintf("%x", newDEK()[:8])} {
		_ = l.kek.Close() // so that nobody else writes the log
		if strings.Contains(l.log.String(), secret) {
			t.Error("the log holds the DEK")
		}
	}
}

// The plugin is away, comes back, and is away again: calls fail and recover by
// themselves, requests that come while it restarts wait for it.
func TestRestart(t *testing.T) {
	socket, plugin := socketPath(t), kmstest.New("secret", "key-1")
	k := open(t, Config{Endpoint: "unix://" + socket, Timeout: patient, PollInterval: never})
	waiting := make(chan error, 1)
	go func() {
		_, err := k.Version(t.Context())
		waiting <- err
	}()
	stop := serve(t, plugin, socket)
	if err := <-waiting; err != nil {
		t.Fatalf("Version, begun before the plugin: %v", err)
	}
	w, err := k.Wrap(t.Context(), newDEK())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		stop()
		go func() {
			_, err := k.Unwrap(t.Context(), w)
			waiting <- err
		}()
		stop = serve(t, plugin, socket)
		if err := <-waiting; err != nil {
			t.Errorf("Unwrap during a restart: %v", err)
		}
	}
}

// A request that the plugin's end cuts off is made once more, with another UID.
func TestCrashDuringRequest(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	entered := make(chan struct{})
	l.Hook(kmstest.Hooks{Decrypt: func(ctx context.Context, _ *service.DecryptRequest, _ *[]byte) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}})
	result := make(chan error, 1)
	go func() {
		_, err := l.kek.Unwrap(t.Context(), w)
		result <- err
	}()
	<-entered
	l.Hook(kmstest.Hooks{})
	l.stop()
	serve(t, l.Plugin, l.socket)
	if err := <-result; err != nil {
		t.Error(err)
	}
	if uids := l.UIDs(); len(uids) != 3 || uids[1] == uids[2] {
		t.Errorf("UIDs %q", uids)
	}
}

// What keeps etcdseal from connecting is named.
func TestUnreachable(t *testing.T) {
	socket := socketPath(t)
	k := open(t, Config{Endpoint: "unix://" + socket, Timeout: time.Second})
	_, err := k.Version(t.Context())
	wantClass(t, "nothing there", err, kek.Unavailable, socket, "no such file", "does it run")

	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = k.Wrap(t.Context(), newDEK())
	wantClass(t, "a file", err, kek.Unavailable, "not a unix socket")
	if _, err := New(Config{Endpoint: "unix://" + socket}); err == nil || !strings.Contains(err.Error(), "not a unix socket") {
		t.Errorf("New with a file: %v", err)
	}
}

// A server that speaks something else is Unavailable too.
func TestNotGRPC(t *testing.T) {
	socket := socketPath(t)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n" + strings.Repeat("<html>", 100)))
			_ = conn.Close()
		}
	}()
	k := open(t, Config{Endpoint: "unix://" + socket, Timeout: 100 * time.Millisecond})
	_, err = k.Version(t.Context())
	wantClass(t, "Version", err, kek.Unavailable)
}

// A caller's own context ends its call and says nothing of the plugin.
func TestCancelDuringRequest(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.Hook(kmstest.Hooks{Decrypt: func(ctx context.Context, _ *service.DecryptRequest, _ *[]byte) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}})
	_, err := l.kek.Unwrap(ctx, w)
	wantClass(t, "Unwrap", err, kek.Unavailable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not %v", err, context.Canceled)
	}
}

// Close ends what waits for the plugin.
func TestCloseDuringRequest(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	l.Hook(kmstest.Hooks{Decrypt: func(ctx context.Context, _ *service.DecryptRequest, _ *[]byte) error {
		go l.kek.Close()
		<-ctx.Done()
		return ctx.Err()
	}})
	_, err := l.kek.Unwrap(t.Context(), w)
	wantClass(t, "Unwrap", err, kek.Unavailable, "closed")
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no endpoint":      {},
		"negative timeout": {Endpoint: "unix:///x", Timeout: -1},
		"negative poll":    {Endpoint: "unix:///x", PollInterval: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
