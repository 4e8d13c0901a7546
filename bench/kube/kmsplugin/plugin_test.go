package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"
)

func keyFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func rsaPEM(t *testing.T) []byte {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestWrapping(t *testing.T) {
	for _, c := range []struct {
		name     string
		key      []byte
		wantSize int
	}{
		{"AES-256-GCM", []byte(strings.Repeat("5a", 32) + "\n"), 32 + 28},
		{"RSA-2048", rsaPEM(t), 256},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := readPlugin(keyFile(t, c.key))
			if err != nil {
				t.Fatal(err)
			}
			seed := bytes.Repeat([]byte{7}, 32)
			wrapped, err := p.Encrypt(t.Context(), "uid", seed)
			if err != nil {
				t.Fatal(err)
			}
			if len(wrapped.Ciphertext) != c.wantSize || len(wrapped.KeyID) != 64 || bytes.Contains(wrapped.Ciphertext, seed) {
				t.Errorf("a ciphertext of %d bytes and a key id of %d, want %d and 64", len(wrapped.Ciphertext), len(wrapped.KeyID), c.wantSize)
			}
			got, err := p.Decrypt(t.Context(), "uid", &service.DecryptRequest{Ciphertext: wrapped.Ciphertext, KeyID: wrapped.KeyID})
			if err != nil || !bytes.Equal(got, seed) {
				t.Errorf("unwrapped to something else than was wrapped (%v)", err)
			}
			if _, err := p.Decrypt(t.Context(), "uid", &service.DecryptRequest{Ciphertext: wrapped.Ciphertext, KeyID: "other"}); err == nil {
				t.Error("another key's id was accepted")
			}
			wrapped.Ciphertext[20] ^= 1
			if _, err := p.Decrypt(t.Context(), "uid", &service.DecryptRequest{Ciphertext: wrapped.Ciphertext, KeyID: wrapped.KeyID}); err == nil {
				t.Error("a changed ciphertext was accepted")
			}
		})
	}
}

func TestBadKeysAreNotRepeated(t *testing.T) {
	for _, data := range []string{"", "secret", strings.Repeat("5", 62), "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"} {
		_, err := readPlugin(keyFile(t, []byte(data)))
		if err == nil || data != "" && strings.Contains(err.Error(), data) || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a bad key file of %d bytes gives the error %v", len(data), err)
		}
	}
}

func TestServesUntilItIsToldToEnd(t *testing.T) {
	dir, err := os.MkdirTemp("", "kms") // a short path: sockets' are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{socket, keyFile(t, []byte(strings.Repeat("5a", 32)))}, &stderr) }()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	status, err := kmsapi.NewKeyManagementServiceClient(conn).Status(call, &kmsapi.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil || status.Version != "v2" || status.Healthz != "ok" {
		t.Errorf("status is %v, %v", status, err)
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit status %d, want 0: %s", got, stderr.String())
	}
	if got := run(t.Context(), []string{socket}, &stderr); got != 2 {
		t.Errorf("exit status %d without a key file, want 2", got)
	}
}
