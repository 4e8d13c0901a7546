// Package interop holds kek/kmsv2 against Kubernetes' own code: the mock plugin and the
// client of kube-apiserver, and its rules of what a plugin may answer. It is a module of
// its own for what that code depends on.
package interop

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	envelope "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	object "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	mock "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/testing/v2"
	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

const patient = time.Minute

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "kms.sock")
}

func open(t *testing.T, endpoint string) *kmsv2.KEK {
	t.Helper()
	k, err := kmsv2.New(kmsv2.Config{Name: "plugin", Endpoint: endpoint, Timeout: patient, PollInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func newDEK() []byte { return bytes.Repeat([]byte{0xd5, 'k', 0x01, '"'}, kek.DEKSize/4) }

// The mock plugin of Kubernetes' integration tests. It has no keys, so it cannot pass
// kektest; it counts the failed state as a disabled key, and itself fails the test if
// the client is not what kube-apiserver's is.
func TestMockPlugin(t *testing.T) {
	socket := socketPath(t)
	plugin := mock.NewBase64Plugin(t, socket)
	k := open(t, "unix://"+socket)
	wrap := func(wantVersion string) kek.Wrapping {
		t.Helper()
		w, err := k.Wrap(t.Context(), newDEK())
		if err != nil || w.Version != wantVersion {
			t.Fatalf("Wrap: %v, %v, want the version %q", w, err, wantVersion)
		}
		if version, err := k.Version(t.Context()); err != nil || version != wantVersion {
			t.Errorf("Version: %q, %v, want %q", version, err, wantVersion)
		}
		return w
	}
	unwrap := func(w kek.Wrapping) {
		t.Helper()
		if dek, err := k.Unwrap(t.Context(), w); err != nil || !bytes.Equal(dek, newDEK()) {
			t.Errorf("Unwrap: %v", err)
		}
	}
	first := wrap("1")
	unwrap(first)
	plugin.UpdateKeyID()
	second := wrap("2")
	unwrap(second)

	plugin.EnterFailedState()
	_, wrapErr := k.Wrap(t.Context(), newDEK())
	_, unwrapErr := k.Unwrap(t.Context(), second)
	if kek.ClassOf(wrapErr) != kek.Disabled || kek.ClassOf(unwrapErr) != kek.Disabled {
		t.Errorf("in the failed state: %v, %v, want both of the class %q", wrapErr, unwrapErr, kek.Disabled)
	}
	plugin.ExitFailedState()
	unwrap(second)
	wrap("2")
}

// What kube-apiserver's client wraps with kmstest's plugin, kek/kmsv2 unwraps, and the
// other way round: they say the same to a plugin, which authenticates all of it.
func TestKubernetesClient(t *testing.T) {
	socket := socketPath(t)
	stop, err := kmstest.Serve(kmstest.New("secret", "key-1"), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	exchange(t, "unix://"+socket)
}

// exchange has each client open what the other had a plugin wrap.
func exchange(t *testing.T, endpoint string) {
	t.Helper()
	k := open(t, endpoint)
	theirs, err := envelope.NewGRPCService(t.Context(), endpoint, "interop", patient)
	if err != nil {
		t.Fatal(err)
	}
	w, err := k.Wrap(t.Context(), newDEK())
	if err != nil {
		t.Fatal(err)
	}
	dek, err := theirs.Decrypt(t.Context(), "uid", &service.DecryptRequest{Ciphertext: w.Ciphertext, KeyID: w.Version, Annotations: w.Annotations})
	if err != nil || !bytes.Equal(dek, newDEK()) {
		t.Errorf("kube-apiserver's client: %v", err)
	}
	answer, err := theirs.Encrypt(t.Context(), "uid", newDEK())
	if err != nil {
		t.Fatal(err)
	}
	dek, err = k.Unwrap(t.Context(), kek.Wrapping{
		Version: answer.KeyID, Algorithm: kmsv2.Algorithm, Ciphertext: answer.Ciphertext, Annotations: answer.Annotations,
	})
	if err != nil || !bytes.Equal(dek, newDEK()) {
		t.Errorf("Unwrap: %v", err)
	}
}

// Of random answers around every limit, kek/kmsv2 takes exactly those that
// kube-apiserver takes.
func TestLimits(t *testing.T) {
	socket, plugin := socketPath(t), kmstest.New("secret", "key-1")
	stop, err := kmstest.Serve(plugin, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	k := open(t, "unix://"+socket)
	random := rand.New(rand.NewPCG(1, 2))
	taken := 0
	for range 2000 {
		keyID, next := "key-1", randomAnswer(random)
		if random.IntN(4) == 0 {
			keyID = strings.Repeat("k", sizeAround(random, 1024))
		}
		plugin.Hook(kmstest.Hooks{
			Encrypt: func(_ context.Context, a *service.EncryptResponse) error {
				a.Ciphertext, a.Annotations, a.KeyID = next.Ciphertext, next.Annotations, keyID
				return nil
			},
		})
		want := envelope.ValidateEncryptedObject(&object.EncryptedObject{
			KeyID: keyID, EncryptedDEKSource: next.Ciphertext, Annotations: next.Annotations, EncryptedData: []byte{0},
		})
		w, err := k.Wrap(t.Context(), newDEK())
		if want == nil && keyID != "key-1" {
			// It is within the limits and not the status's.
			if err == nil || !strings.Contains(err.Error(), "its status names") {
				t.Errorf("a key id of %d bytes: %v", len(keyID), err)
			}
			continue
		}
		if (err == nil) != (want == nil) {
			t.Errorf("%d bytes, key id of %d, annotations %.300q: %v, kube-apiserver says %.300v", len(next.Ciphertext), len(keyID), fmt.Sprint(next.Annotations), err, want)
		}
		if err == nil {
			taken++
			if !bytes.Equal(w.Ciphertext, next.Ciphertext) || !maps.EqualFunc(w.Annotations, next.Annotations, bytes.Equal) {
				t.Errorf("%v is not what the plugin answered", w)
			}
		}
	}
	if taken < 100 || taken > 1900 {
		t.Errorf("%d answers are taken: the test has lost its sense", taken)
	}
}

func sizeAround(random *rand.Rand, limit int) int {
	return max(0, []int{0, 1, limit - 1, limit, limit + 1, 2 * limit}[random.IntN(6)])
}

func randomAnswer(random *rand.Rand) *service.EncryptResponse {
	a := &service.EncryptResponse{Ciphertext: []byte("ciphertext")}
	if random.IntN(4) == 0 {
		a.Ciphertext = make([]byte, sizeAround(random, 1024))
	}
	if n := random.IntN(4); n > 0 {
		a.Annotations = map[string][]byte{}
		for range n {
			a.Annotations[randomName(random)] = make([]byte, random.IntN(10))
		}
	}
	if random.IntN(4) == 0 {
		name := "a.example"
		a.Annotations = map[string][]byte{name: make([]byte, sizeAround(random, 32<<10-len(name)))}
	}
	return a
}

// randomName makes something like a domain name, right about half the time.
func randomName(random *rand.Rand) string {
	const letters = "abcxyz0189"
	var labels []string
	for range 1 + random.IntN(4) {
		label := make([]byte, []int{1, 2, 5, 62, 63, 64}[min(5, random.IntN(12)%6*random.IntN(2)+random.IntN(3))])
		for i := range label {
			label[i] = letters[random.IntN(len(letters))]
		}
		if random.IntN(12) == 0 {
			label[random.IntN(len(label))] = "-_A.*\n"[random.IntN(6)]
		}
		labels = append(labels, string(label))
	}
	name := strings.Join(labels, ".")
	if random.IntN(10) == 0 {
		name += strings.Repeat(".", random.IntN(3))
	}
	if random.IntN(20) == 0 {
		name = strings.Repeat("a.", 124+random.IntN(4)) + name
	}
	return name
}
