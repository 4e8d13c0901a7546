package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
)

// The packages that are built when no binary is given. Both are resolved by the module in whose directory the benchmark runs.
const (
	etcdPackage     = "go.etcd.io/etcd/server/v3"
	etcdsealPackage = "github.com/etcdseal/etcdseal/cmd/etcdseal"
)

// binaries are the programs of a run.
type binaries struct {
	self, etcd, etcdseal string
}

// prepare builds what was not given on the command line.
func prepare(ctx context.Context, o options, stderr io.Writer) (binaries, error) {
	self, err := os.Executable()
	if err != nil {
		return binaries{}, fmt.Errorf("finding own binary: %w", err)
	}
	b := binaries{self: self, etcd: o.etcd, etcdseal: o.etcdseal}
	if b.etcd == "" {
		if b.etcd, err = build(ctx, o.bin, "etcd", etcdPackage, stderr); err != nil {
			return binaries{}, err
		}
	}
	if b.etcdseal == "" && o.needsSeal() {
		if b.etcdseal, err = build(ctx, o.bin, "etcdseal", etcdsealPackage, stderr); err != nil {
			return binaries{}, err
		}
	}
	return b, nil
}

func build(ctx context.Context, dir, name, pkg string, stderr io.Writer) (string, error) {
	fmt.Fprintf(stderr, "building %s\n", pkg)
	out, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", dir, err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building %s (run the benchmark inside the checkout, or give the binary by its flag): %w", pkg, err)
	}
	return out, nil
}

// etcdVersion is the version of the etcd module that this binary was built with, which is the one that is measured unless -etcd was given.
func etcdVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == "go.etcd.io/etcd/api/v3" {
			return m.Version
		}
	}
	return "unknown"
}
