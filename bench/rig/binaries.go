package rig

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The packages that are built when no binary is given, and the directories of the checkout in whose modules they are resolved: only the end-to-end
// tests' has everything that etcd's command needs.
const (
	etcdPackage     = "go.etcd.io/etcd/server/v3"
	etcdModule      = "e2e"
	etcdsealPackage = "./cmd/etcdseal"
	etcdsealModule  = "."
)

// profileTag builds an etcdseal that writes profiles of itself when it is told to by a signal. Releases are built without it.
const profileTag = "benchprofile"

// Binaries are the programs of a run.
type Binaries struct {
	Self     string // the benchmark's own, which has the TCP copy in it
	Etcd     string
	Etcdseal string
	Earlier  string // another etcdseal to compare with; empty if there is none
}

// Build says which binaries to make.
type Build struct {
	Dir            string // where they are left; what is up to date there is not built again
	Etcd, Etcdseal string // ready ones to use instead
	Earlier        string // is never built
	Seal           bool   // whether etcdseal is needed at all
	Profile        bool   // whether etcdseal must be able to write profiles
}

// Make builds what was not given.
func (b Build) Make(ctx context.Context, stderr io.Writer) (Binaries, error) {
	self, err := os.Executable()
	if err != nil {
		return Binaries{}, fmt.Errorf("finding own binary: %w", err)
	}
	made := Binaries{Self: self, Etcd: b.Etcd, Etcdseal: b.Etcdseal, Earlier: b.Earlier}
	if made.Etcd == "" {
		if made.Etcd, err = build(ctx, filepath.Join(b.Dir, "etcd"), etcdModule, etcdPackage, stderr); err != nil {
			return Binaries{}, err
		}
	}
	if made.Etcdseal != "" || !b.Seal {
		return made, nil
	}
	name, flags := "etcdseal", []string{"-ldflags", "-s -w"} // as releases are built
	if b.Profile {
		name, flags = "etcdseal-profile", []string{"-tags", profileTag}
	}
	made.Etcdseal, err = build(ctx, filepath.Join(b.Dir, name), etcdsealModule, etcdsealPackage, stderr, flags...)
	return made, err
}

func build(ctx context.Context, path, module, pkg string, stderr io.Writer, flags ...string) (string, error) {
	fmt.Fprintf(stderr, "building %s\n", pkg)
	out, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", path, err)
	}
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-trimpath", "-o", out}, flags...), pkg)...)
	cmd.Dir, cmd.Stderr = module, stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	// The go command removes its own scratch directory when it is interrupted, not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building %s (run the benchmark in the root of the checkout, or give the binary by its flag): %w", pkg, err)
	}
	return out, nil
}

// EtcdVersion is what the etcd binary says of itself.
func (b Binaries) EtcdVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, b.Etcd, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking etcd for its version: %w", err)
	}
	return parseVersion(string(out))
}

// parseVersion reads the first line, "etcd Version: 3.7.3".
func parseVersion(text string) (string, error) {
	line, _, _ := strings.Cut(text, "\n")
	version, ok := strings.CutPrefix(line, "etcd Version: ")
	if !ok {
		return "", fmt.Errorf("reading etcd's version: %q is not one", line)
	}
	return strings.TrimSpace(version), nil
}
