package rig

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

// SealedPrefix is the prefix of the one rule of every etcdseal that is measured. PlainPrefix is as long and under no rule.
const (
	SealedPrefix = "/registry/secrets/"
	PlainPrefix  = "/registry/configs/"
)

// profileEnv tells an etcdseal that was built with profileTag where to write its profiles (cmd/etcdseal/profile_bench.go).
const profileEnv = "ETCDSEAL_BENCH_PROFILE"

// Seal is one running etcdseal.
type Seal struct {
	*child.Process
	Address string        // host:port for clients
	Ready   time.Duration // from exec to the first 200 of /readyz
	admin   string        // URL of the admin listener
}

// newKEK makes the key file that all of the rig's etcdseals share.
func (r *Rig) newKEK(ctx context.Context, stderr io.Writer) error {
	r.kek = filepath.Join(r.Dir, "kek.key")
	cmd := exec.CommandContext(ctx, r.Binaries.Etcdseal, "keyring", "new-kek", "--out", r.kek)
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("making a local KEK: %w", err)
	}
	return nil
}

// Seal starts etcdseal in front of etcd with TLS and client certificates on both legs, or on neither, and waits until it is ready.
func (r *Rig) Seal(ctx context.Context, name string, secured bool) (*Seal, error) {
	return r.sealInFrontOf(ctx, r.Binaries.Etcdseal, name, r.Upstream(secured), secured)
}

// Upstream is etcd's address, host:port.
func (r *Rig) Upstream(secured bool) string {
	if secured {
		return r.Secured
	}
	return r.Plain
}

func (r *Rig) sealInFrontOf(ctx context.Context, binary, name, upstream string, secured bool) (*Seal, error) {
	return r.startSeal(ctx, binary, name, func(address, admin string) string { return r.config(address, admin, upstream, secured) })
}

// SealWith starts etcdseal with the configuration for two addresses, in the file NAME-config.yaml, and waits until it is ready.
func (r *Rig) SealWith(ctx context.Context, name string, config func(address, admin string) string) (*Seal, error) {
	return r.startSeal(ctx, r.Binaries.Etcdseal, name, config)
}

func (r *Rig) startSeal(ctx context.Context, binary, name string, config func(address, admin string) string) (*Seal, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(r.Dir, name+"-config.yaml")
	if err := os.WriteFile(file, []byte(config(address, admin)), 0o600); err != nil {
		return nil, fmt.Errorf("writing configuration of %s: %w", name, err)
	}
	begin := time.Now()
	start := child.Config{Name: name, Path: binary, Args: []string{"serve", "--config", file}}
	if r.profiles != "" && binary == r.Binaries.Etcdseal {
		start.Env = []string{profileEnv + "=" + r.profiles}
	}
	p, err := r.start(start)
	if err != nil {
		return nil, err
	}
	s := &Seal{Process: p, Address: address, admin: "http://" + admin}
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	s.Ready = time.Since(begin)
	return s, nil
}

// config is design.md section 7 with one rule and one local KEK.
func (r *Rig) config(address, admin, upstream string, secured bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "admin: {address: %q}\n", admin)
	fmt.Fprintf(&b, "keks: {bench: {local: {keyFile: %q}}}\n", r.kek)
	fmt.Fprintf(&b, "rules: [{prefix: %q, kek: bench}]\n", SealedPrefix)
	fmt.Fprintf(&b, "keyring: {name: bench, store: etcd}\n")
	if !secured {
		fmt.Fprintf(&b, "listen: {address: %q, insecure: true}\n", address)
		fmt.Fprintf(&b, "etcd: {endpoints: [%q]}\n", "http://"+upstream)
		return b.String()
	}
	fmt.Fprintf(&b, "listen: {address: %q, tls: {certFile: %q, keyFile: %q, clientCAFile: %q}}\n", address, r.pki.serverCert, r.pki.serverKey, r.pki.ca)
	fmt.Fprintf(&b, "etcd: {endpoints: [%q], tls: {caFile: %q, certFile: %q, keyFile: %q}}\n", "https://"+upstream, r.pki.ca, r.pki.clientCert, r.pki.clientKey)
	return b.String()
}

// waitReady asks /readyz every millisecond until it answers 200.
func (s *Seal) waitReady(ctx context.Context) error {
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
