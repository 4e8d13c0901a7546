package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek/local"
)

// TestEtcdToolDoesNotRotate has a verb that works on values rewrap nothing, however long it
// runs or waits for an answer: a dry run changes nothing.
func TestEtcdToolDoesNotRotate(t *testing.T) {
	dir := t.TempDir()
	if err := local.Generate(filepath.Join(dir, "kek.key")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "proxy.yaml")
	if err := os.WriteFile(file, []byte(`
listen: {address: "unix://s.sock"}
etcd: {endpoints: ["unix:///nobody-listens.sock"]}
keks: {dev: {local: {keyFile: kek.key}}}
keyring: {name: test, store: file, path: keyring.json}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	tool, err := openEtcdTool(t.Context(), file, io.Discard, logger)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := tool.keyring.Rotate(t.Context(), dek.RotateOptions{DryRun: true}); err == nil || !strings.Contains(err.Error(), "no rule names a KEK") {
		t.Errorf("got %+v, %v, want a keyring that rewraps nothing", r, err)
	}
	tool.close()
	d, err := openRotator(t.Context(), file, io.Discard, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := d.keyring.Rotate(t.Context(), dek.RotateOptions{DryRun: true}); err != nil {
		t.Errorf("rotate's own keyring: %v", err)
	}
}
