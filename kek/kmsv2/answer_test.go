package kmsv2

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

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
			if len(fmt.Sprint(err)) > 800 {
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
