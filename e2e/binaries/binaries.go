// Package binaries builds the programs that the end-to-end tests run, from
// their Go modules, into the folder bin of the e2e module: kube-apiserver and kubectl
// (module e2e/kube), the stand-in for a kubelet (package e2e/kubeadm/kubelet), etcd, etcdctl and etcdutl (module e2e), earlier versions of
// etcd (modules e2e/etcd36 and e2e/etcd35), h2spec (package
// e2e/h2spec), and etcdseal itself from the parent folder, with the race
// detector where it is available.
//
// The programs of others are built once for each version: a stamp beside each
// binary holds what it was built from. The project's own are always built, which
// costs nothing when the build cache has them.
package binaries

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// kubernetesVersion is what kube-apiserver calls itself; clients and etcd
// feature checks read it.
const kubernetesVersion = "v1.37.2"

// The programs that can be built.
const (
	Etcd          = "etcd"
	Etcd36        = "etcd-3.6"
	Etcd35        = "etcd-3.5"
	Etcdctl       = "etcdctl"
	Etcdutl       = "etcdutl"
	KubeAPIServer = "kube-apiserver"
	Kubectl       = "kubectl"
	Kubelet       = "kubelet"
	Etcdseal      = "etcdseal"
	H2spec        = "h2spec"
)

// program is one binary and how to build it.
type program struct {
	name    string
	pkg     string
	dir     string // of the module, below the e2e module
	ldflags string
	race    bool
	always  bool
}

func programs() []program {
	const version = "k8s.io/component-base/version."
	kube := "-s -w -X " + version + "gitVersion=" + kubernetesVersion +
		" -X " + version + "gitMajor=1 -X " + version + "gitMinor=37"
	return []program{
		{name: Etcd, pkg: "go.etcd.io/etcd/server/v3", dir: ".", ldflags: "-s -w"},
		{name: Etcd36, pkg: "go.etcd.io/etcd/server/v3", dir: "etcd36", ldflags: "-s -w"},
		{name: Etcd35, pkg: "go.etcd.io/etcd/server/v3", dir: "etcd35", ldflags: "-s -w"},
		{name: Etcdctl, pkg: "go.etcd.io/etcd/etcdctl/v3", dir: ".", ldflags: "-s -w"},
		{name: Etcdutl, pkg: "go.etcd.io/etcd/etcdutl/v3", dir: ".", ldflags: "-s -w"},
		{name: KubeAPIServer, pkg: "k8s.io/kubernetes/cmd/kube-apiserver", dir: "kube", ldflags: kube},
		{name: Kubectl, pkg: "k8s.io/kubernetes/cmd/kubectl", dir: "kube", ldflags: kube},
		{name: Kubelet, pkg: "./kubeadm/kubelet", dir: ".", ldflags: "-s -w", always: true},
		{name: H2spec, pkg: "./h2spec", dir: ".", ldflags: "-s -w", always: true},
		{name: Etcdseal, pkg: "./cmd/etcdseal", dir: "..", race: raceAvailable(), always: true},
	}
}

// All names every program.
func All() []string {
	var names []string
	for _, p := range programs() {
		names = append(names, p.name)
	}
	return names
}

// raceAvailable reports whether the race detector can be linked: it needs a C
// compiler.
func raceAvailable() bool {
	_, err := exec.LookPath("gcc")
	return err == nil
}

// Build builds those of the named programs that are missing or out of date,
// says on progress what it builds, and returns the folder that holds them
// under their names. A cold build of kube-apiserver takes minutes
// and 2.5 GB of memory. A lock file keeps several processes from
// building at once.
func Build(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	root, err := moduleFolder(ctx)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", fmt.Errorf("making folder for binaries: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(bin, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	for _, p := range programs() {
		if !slices.Contains(names, p.name) {
			continue
		}
		if err := p.build(ctx, root, bin, progress); err != nil {
			return "", err
		}
	}
	return bin, nil
}

// build builds p unless its stamp says that the binary is that build.
func (p program) build(ctx context.Context, root, bin string, progress io.Writer) error {
	dir := filepath.Join(root, p.dir)
	binary := filepath.Join(bin, p.name)
	stampFile := binary + ".stamp"
	stamp, err := p.stamp(dir)
	if err != nil {
		return err
	}
	if !p.always && isFile(binary) && fileHolds(stampFile, stamp) {
		return nil
	}
	start := time.Now()
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", p.ldflags}
	cgo := "0"
	if p.race {
		args, cgo = append(args, "-race"), "1"
	}
	fmt.Fprintf(progress, "building %s from %s\n", p.name, p.pkg)
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", binary, p.pkg)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOWORK=off")
	// The go command starts no more compilers and removes its scratch directory
	// when it is interrupted, not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", p.name, err, out)
	}
	fmt.Fprintf(progress, "built %s in %.1f s\n", p.name, time.Since(start).Seconds())
	if err := os.WriteFile(stampFile, []byte(stamp), 0o644); err != nil {
		return fmt.Errorf("writing stamp of %s: %w", p.name, err)
	}
	return nil
}

// stamp identifies what a build is made from: toolchain, flags and the exact
// versions of all modules.
func (p program) stamp(dir string) (string, error) {
	hash := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("reading module of %s: %w", p.name, err)
		}
		hash.Write(data)
	}
	return fmt.Sprintf("%s %s %s %x\n", runtime.Version(), p.pkg, p.ldflags, hash.Sum(nil)), nil
}

// moduleFolder is the root of the e2e module, asked of the go command because
// tests run in the folder of their package.
func moduleFolder(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking for the module's folder: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// lock takes an exclusive lock on the file, waiting for whoever has it until ctx
// ends. The kernel frees it when the process ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening lock of the builds: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		// A call that waits for the lock could not be interrupted.
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("locking the builds: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("waiting for another build to end: %w", ctx.Err())
		}
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func fileHolds(path, want string) bool {
	data, err := os.ReadFile(path)
	return err == nil && string(data) == want
}
