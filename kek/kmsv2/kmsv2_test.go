package kmsv2

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

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

// What another plugin wrapped is not opened, and that says nothing of the key.
func TestAnotherPluginsCiphertext(t *testing.T) {
	l := newLab(t)
	other := &lab{Plugin: kmstest.New("another secret", "key-1"), socket: socketPath(t)}
	serve(t, other.Plugin, other.socket)
	other.kek = open(t, Config{Endpoint: "unix://" + other.socket, Timeout: patient})
	_, err := l.kek.Unwrap(t.Context(), other.wrap(t))
	wantClass(t, "Unwrap", err, kek.Unavailable, "Unknown", "message authentication failed")
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
