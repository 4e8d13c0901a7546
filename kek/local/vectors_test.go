package local_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
)

// vector is one entry of testdata/vectors.json, which another implementation made
// (Python, pyca/cryptography). The file is frozen.
type vector struct {
	Name       string `json:"name"`
	KeyFile    string `json:"keyFile"`
	Version    string `json:"version"`
	AESKey     string `json:"aesKey"`
	Algorithm  string `json:"algorithm"`
	DEK        string `json:"dek"`
	Ciphertext string `json:"ciphertext"`
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	content, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(content, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 2 {
		t.Fatalf("%d vectors, some were lost", len(vectors))
	}
	return vectors
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek.key")
			if err := os.WriteFile(path, []byte(v.KeyFile), 0o600); err != nil {
				t.Fatal(err)
			}
			k := open(t, path)
			if version, err := k.Version(t.Context()); err != nil || version != v.Version {
				t.Errorf("version %q, %v, want %q", version, err, v.Version)
			}
			w := kek.Wrapping{Version: v.Version, Algorithm: v.Algorithm, Ciphertext: unhex(t, v.Ciphertext)}
			if dek, err := k.Unwrap(t.Context(), w); err != nil || !bytes.Equal(dek, unhex(t, v.DEK)) {
				t.Errorf("Unwrap = %x, %v, want %s", dek, err, v.DEK)
			}
		})
	}
}

// A wrapping that Wrap made opens by what docs/FORMAT.md says, with no code of the
// package: derivation by HMAC, GCM with the nonce given.
func TestReferenceUnwrap(t *testing.T) {
	v := readVectors(t)[0]
	path := filepath.Join(t.TempDir(), "kek.key")
	if err := os.WriteFile(path, []byte(v.KeyFile), 0o600); err != nil {
		t.Fatal(err)
	}
	dek := bytes.Repeat([]byte{0xd5, 2}, kek.DEKSize/2)
	w, err := open(t, path).Wrap(t.Context(), dek)
	if err != nil || w.Version != v.Version || w.Algorithm != v.Algorithm || len(w.Ciphertext) != 60 || w.Annotations != nil {
		t.Fatalf("Wrap = %s, %v, %d bytes, want %s, %s, 60", w, err, len(w.Ciphertext), v.Version, v.Algorithm)
	}
	fips140.WithoutEnforcement(func() { // FIPS mode has no GCM with a given nonce
		extract := hmac.New(sha256.New, make([]byte, 32))
		extract.Write(unhex(t, strings.Split(v.KeyFile, "\n")[1]))
		expand := hmac.New(sha256.New, extract.Sum(nil))
		expand.Write([]byte("etcdseal local kek aes-256-gcm v1\x01"))
		block, err := aes.NewCipher(expand.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		aad := []byte("etcdseal local kek wrapping v1\x00" + w.Version)
		got, err := gcm.Open(nil, w.Ciphertext[:12], w.Ciphertext[12:], aad)
		if err != nil || !bytes.Equal(got, dek) {
			t.Errorf("the reference returns %x, %v, want %x", got, err, dek)
		}
	})
}

// docs/FORMAT.md works the first vector out; what it shows must be the vector.
func TestFormatDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	v := readVectors(t)[0]
	for field, want := range map[string]string{
		"key file":    "    " + strings.ReplaceAll(strings.TrimSuffix(v.KeyFile, "\n"), "\n", "\n    ") + "\n",
		"AES key":     v.AESKey,
		"algorithm":   "`" + v.Algorithm + "`",
		"DEK":         v.DEK,
		"AAD":         hex.EncodeToString([]byte("etcdseal local kek wrapping v1\x00" + v.Version)),
		"wrapped DEK": v.Ciphertext,
	} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/FORMAT.md does not hold the worked example's %s: %s", field, want)
		}
	}
}
