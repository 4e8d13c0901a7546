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
	// testModule is the directory of the end-to-end tests' module, whose command builds kube-apiserver.
	testModule    = "e2e"
	apiServerName = "kube-apiserver"
)

// MakeKubernetes builds what the level of Kubernetes needs beside the other binaries: a KMS v2 plugin, and kube-apiserver unless a ready one is given. The
// latter is the end-to-end tests' and shared with them; the first time, building it takes six minutes on two cores.
func (b Build) MakeKubernetes(ctx context.Context, ready string, stderr io.Writer) (apiServer, plugin string, err error) {
	if plugin, err = build(ctx, filepath.Join(b.Dir, "kmsplugin"), etcdsealModule, kmsPluginPackage, stderr); err != nil || ready != "" {
		return ready, plugin, err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./build", apiServerName)
	cmd.Dir, cmd.Stdout, cmd.Stderr = testModule, stderr, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return "", "", fmt.Errorf("building kube-apiserver (run the benchmark in the root of the checkout, or give the binary by its flag): %w", err)
	}
	apiServer, err = filepath.Abs(filepath.Join(testModule, "bin", apiServerName))
	if err != nil {
		return "", "", fmt.Errorf("finding kube-apiserver: %w", err)
	}
	return apiServer, plugin, nil
}
