package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/kek/local"
)

// generate makes a key file in a directory of the test's own.
func generate(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek.key")
	if err := local.Generate(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *local.KEK {
	t.Helper()
	k, err := local.New(local.Config{Name: "dev", KeyFile: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestConformance(t *testing.T) {
	path := generate(t)
	kektest.Run(t, func(t *testing.T) kek.KEK { return open(t, path) })
}

// wrapped is a KEK, its version, and a wrapping by it.
func wrapped(t *testing.T) (*local.KEK, []byte, kek.Wrapping) {
	t.Helper()
	k, dek := open(t, generate(t)), bytes.Repeat([]byte{0xd5, 1}, kek.DEKSize/2)
	w, err := k.Wrap(t.Context(), dek)
	if err != nil {
		t.Fatal(err)
	}
	return k, dek, w
}

func TestWrapIsRandomised(t *testing.T) {
	k, dek, w := wrapped(t)
	again, err := k.Wrap(t.Context(), dek)
	if err != nil || bytes.Equal(w.Ciphertext, again.Ciphertext) {
		t.Errorf("a DEK wrapped twice: %v, same bytes: %v", err, bytes.Equal(w.Ciphertext, again.Ciphertext))
	}
}

func TestUnwrapEveryBitFlip(t *testing.T) {
	k, dek, w := wrapped(t)
	original := bytes.Clone(w.Ciphertext)
	for bit := range len(original) * 8 {
		w.Ciphertext = bytes.Clone(original)
		w.Ciphertext[bit/8] ^= 1 << (bit % 8)
		if got, err := k.Unwrap(t.Context(), w); kek.ClassOf(err) != kek.Corrupt || got != nil {
			t.Errorf("bit %d flipped: %v, want the class %q", bit, err, kek.Corrupt)
		}
	}
	for n := range len(original) {
		w.Ciphertext = original[:n:n]
		if got, err := k.Unwrap(t.Context(), w); kek.ClassOf(err) != kek.Corrupt || got != nil {
			t.Errorf("the first %d bytes: %v, want the class %q", n, err, kek.Corrupt)
		}
	}
	w.Ciphertext = original
	if got, err := k.Unwrap(t.Context(), w); err != nil || !bytes.Equal(got, dek) {
		t.Errorf("unchanged: %v", err)
	}
}

func TestUnwrapStrict(t *testing.T) {
	k, _, w := wrapped(t)
	annotated := w
	annotated.Annotations = map[string][]byte{"a": nil}
	algorithm := w
	algorithm.Algorithm = "aes-256-gcm"
	for name, bad := range map[string]kek.Wrapping{"an annotation": annotated, "another algorithm": algorithm} {
		if _, err := k.Unwrap(t.Context(), bad); kek.ClassOf(err) != kek.Corrupt {
			t.Errorf("%s: %v, want the class %q", name, err, kek.Corrupt)
		}
	}
}

// A wrapping by another key file is NotFound, and the error names both versions
// and the KEK.
func TestUnwrapAnotherVersion(t *testing.T) {
	k, _, _ := wrapped(t)
	_, _, other := wrapped(t)
	_, err := k.Unwrap(t.Context(), other)
	if kek.ClassOf(err) != kek.NotFound {
		t.Fatalf("%v, want the class %q", err, kek.NotFound)
	}
	version, versionErr := k.Version(t.Context())
	if versionErr != nil || version == other.Version || len(version) != 16 {
		t.Fatalf("version %q, %v, the other file's is %q", version, versionErr, other.Version)
	}
	for _, want := range []string{version, other.Version, `"dev"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	// The name of a version alone does not help.
	other.Version = version
	if _, err := k.Unwrap(t.Context(), other); kek.ClassOf(err) != kek.Corrupt {
		t.Errorf("under this key's version: %v, want the class %q", err, kek.Corrupt)
	}
}

// The key is read once: a file that is gone or replaced changes nothing, and an
// open KEK prints no key.
func TestKeyFileIsReadOnce(t *testing.T) {
	path := generate(t)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	k := open(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Wrap(t.Context(), make([]byte, kek.DEKSize)); err != nil {
		t.Errorf("after the file was removed: %v", err)
	}
	digits := strings.Split(string(content), "\n")[1]
	for _, verb := range []string{"%v", "%+v", "%#v", "%x"} {
		if strings.Contains(fmt.Sprintf(verb, k), digits[:16]) {
			t.Errorf("%s prints the key", verb)
		}
	}
	var e *kek.Error
	if _, err := k.Wrap(t.Context(), nil); !errors.As(err, &e) || e.KEK != "dev" {
		t.Errorf("%v does not carry the KEK's name", err)
	}
}

func TestTrace(t *testing.T) {
	k, _, w := wrapped(t)
	var trace kek.Trace
	if _, err := k.Unwrap(kek.WithTrace(t.Context(), &trace), w); err != nil {
		t.Fatal(err)
	}
	if want := (kek.Trace{KeyID: w.Version, Tries: 1}); trace != want {
		t.Errorf("the trace is %+v, want %+v", trace, want)
	}
}
