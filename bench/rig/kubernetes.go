package rig

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// kmsPluginPackage is a KMS v2 plugin with a local key, of the module of etcdseal.
	kmsPluginPackage = "./bench/kube/kmsplugin"
	// testModule is the directory of the end-to-end tests' module, whose command testBuild builds kube-apiserver.
	testModule    = "e2e"
	testBuild     = "./build"
	apiServerName = "kube-apiserver"
)

// testBuildGrace is how long that command may take to end when it is interrupted: more than it gives the go command that it runs.
const testBuildGrace = 20 * time.Second

// MakeKubernetes builds what the level of Kubernetes needs beside the other binaries: a KMS v2 plugin, and kube-apiserver unless a ready one is given. The
// latter is the end-to-end tests' and shared with them, since its first build takes long.
func (b Build) MakeKubernetes(ctx context.Context, ready string, stderr io.Writer) (apiServer, plugin string, err error) {
	if plugin, err = build(ctx, filepath.Join(b.Dir, "kmsplugin"), etcdsealModule, kmsPluginPackage, stderr); err != nil || ready != "" {
		return ready, plugin, err
	}
	// The command is run as it is: an interrupt of `go run` reaches neither the command nor the builds that it has started.
	command, err := build(ctx, filepath.Join(b.Dir, "e2e-build"), testModule, testBuild, stderr)
	if err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, command, apiServerName)
	cmd.Dir, cmd.Stdout, cmd.Stderr = testModule, stderr, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = testBuildGrace
	if err := cmd.Run(); err != nil {
		return "", "", fmt.Errorf("building kube-apiserver (run the benchmark in the root of the checkout, or give the binary by its flag): %w", err)
	}
	apiServer, err = filepath.Abs(filepath.Join(testModule, "bin", apiServerName))
	if err != nil {
		return "", "", fmt.Errorf("finding kube-apiserver: %w", err)
	}
	return apiServer, plugin, nil
}
