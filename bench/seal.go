package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/bench/child"
)

// sealedPrefix is the prefix of the one rule of every etcdseal that is measured.
const sealedPrefix = "/registry/secrets/"

// seal is one running etcdseal.
type seal struct {
	*child.Process
	address string        // host:port for clients
	admin   string        // URL of the admin listener
	ready   time.Duration // from exec to the first 200 of /readyz
}

// newKEK makes the key file that all of the rig's etcdseals share.
func (r *rig) newKEK(ctx context.Context, stderr io.Writer) error {
	r.kek = filepath.Join(r.dir, "kek.key")
	cmd := exec.CommandContext(ctx, r.bin.etcdseal, "keyring", "new-kek", "--out", r.kek)
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("making a local KEK: %w", err)
	}
	return nil
}

// startSeal starts etcdseal with TLS and client certificates on both legs, or on neither, and waits until it is ready.
func (r *rig) startSeal(ctx context.Context, name string, secured bool) (*seal, error) {
	return r.startSealWith(ctx, name, func(address, admin string) string { return r.config(address, admin, secured) })
}

// startSealWith starts etcdseal with the configuration for two addresses, in the file NAME-config.yaml, and waits until it is ready.
func (r *rig) startSealWith(ctx context.Context, name string, config func(address, admin string) string) (*seal, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(r.dir, name+"-config.yaml")
	if err := os.WriteFile(file, []byte(config(address, admin)), 0o600); err != nil {
		return nil, fmt.Errorf("writing configuration of %s: %w", name, err)
	}
	begin := time.Now()
	p, err := r.start(name, r.bin.etcdseal, "serve", "--config", file)
	if err != nil {
		return nil, err
	}
	s := &seal{Process: p, address: address, admin: "http://" + admin}
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	s.ready = time.Since(begin)
	return s, nil
}

// config is design.md section 7 with one rule and one local KEK.
func (r *rig) config(address, admin string, secured bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "admin: {address: %q}\n", admin)
	fmt.Fprintf(&b, "keks: {bench: {local: {keyFile: %q}}}\n", r.kek)
	fmt.Fprintf(&b, "rules: [{prefix: %q, kek: bench}]\n", sealedPrefix)
	fmt.Fprintf(&b, "keyring: {name: bench, store: etcd}\n")
	if !secured {
		fmt.Fprintf(&b, "listen: {address: %q, insecure: true}\n", address)
		fmt.Fprintf(&b, "etcd: {endpoints: [%q]}\n", "http://"+r.plain)
		return b.String()
	}
	fmt.Fprintf(&b, "listen: {address: %q, tls: {certFile: %q, keyFile: %q, clientCAFile: %q}}\n", address, r.pki.serverCert, r.pki.serverKey, r.pki.ca)
	fmt.Fprintf(&b, "etcd: {endpoints: [%q], tls: {caFile: %q, certFile: %q, keyFile: %q}}\n", "https://"+r.secured, r.pki.ca, r.pki.clientCert, r.pki.clientKey)
	return b.String()
}

// waitReady asks /readyz every millisecond until it answers 200.
func (s *seal) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	last := "no answer"
	for {
		if status, body, err := get(ctx, s.admin+"/readyz"); err == nil {
			if status == http.StatusOK {
				return nil
			}
			last = body
		}
		select {
		case <-tick.C:
		case <-s.Exited():
			return s.Err()
		case <-ctx.Done():
			return fmt.Errorf("waiting for /readyz: %w; it last said: %s", ctx.Err(), last)
		}
	}
}

func get(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", fmt.Errorf("asking %s: %w", url, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, "", fmt.Errorf("reading answer of %s: %w", url, err)
	}
	return response.StatusCode, string(data), nil
}
