package rig

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// The packages that are built when no binary is given. Both are resolved by the module in whose directory the benchmark runs.
const (
	etcdPackage     = "go.etcd.io/etcd/server/v3"
	etcdsealPackage = "github.com/etcdseal/etcdseal/cmd/etcdseal"
)

// profileTag builds an etcdseal that writes profiles of itself when it is told to by a signal. Releases are built without it.
const profileTag = "benchprofile"

// Binaries are the programs of a run.
type Binaries struct {
	Self     string // the benchmark's own, which has the TCP copy in it
	Etcd     string
	Etcdseal string
}

// Build says which binaries to make.
type Build struct {
	Dir            string // where they are left; what is up to date there is not built again
	Etcd, Etcdseal string // ready ones to use instead
	Seal           bool   // whether etcdseal is needed at all
	Profile        bool   // whether etcdseal must be able to write profiles
}

// Make builds what was not given.
func (b Build) Make(ctx context.Context, stderr io.Writer) (Binaries, error) {
	self, err := os.Executable()
	if err != nil {
		return Binaries{}, fmt.Errorf("finding own binary: %w", err)
	}
	made := Binaries{Self: self, Etcd: b.Etcd, Etcdseal: b.Etcdseal}
	if made.Etcd == "" {
		if made.Etcd, err = build(ctx, filepath.Join(b.Dir, "etcd"), etcdPackage, stderr); err != nil {
			return Binaries{}, err
		}
	}
	if made.Etcdseal != "" || !b.Seal {
		return made, nil
	}
	name, flags := "etcdseal", []string(nil)
	if b.Profile {
		name, flags = "etcdseal-profile", []string{"-tags", profileTag}
	}
	made.Etcdseal, err = build(ctx, filepath.Join(b.Dir, name), etcdsealPackage, stderr, flags...)
	return made, err
}

func build(ctx context.Context, path, pkg string, stderr io.Writer, flags ...string) (string, error) {
	fmt.Fprintf(stderr, "building %s\n", pkg)
	out, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", path, err)
	}
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-trimpath", "-o", out}, flags...), pkg)...)
	cmd.Stderr = stderr
	// The go command removes its own scratch directory when it is interrupted, not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building %s (run the benchmark inside the checkout, or give the binary by its flag): %w", pkg, err)
	}
	return out, nil
}

// EtcdVersion is the version of the etcd module that this binary was built with, which is the one that is measured unless another binary was given.
func EtcdVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == "go.etcd.io/etcd/api/v3" {
			return strings.TrimPrefix(m.Version, "v")
		}
	}
	return "unknown"
}
