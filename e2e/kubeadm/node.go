package kubeadm

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/poll"
	"github.com/etcdseal/etcdseal/e2e/process"
)

// bootScript gives a node folders of its own, a name, and its kubelet as the first
// process. $1 is the node's folder, $2 the programs, $3 the name, $4 the project. The
// programs and the project are mounted before what may hide them.
const bootScript = `set -e
mount --bind "$2" /usr/local/bin
mount --bind "$1/var" /var/lib
mount --bind "$1/etc" /etc
mkdir -p "$1/root/etcdseal"
mount --bind "$4" "$1/root/etcdseal"
mount --rbind "$1/root" /root
hostname "$3"
cd /root
exec env -i PATH=/root/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root /usr/local/bin/kubelet /etc/kubernetes/manifests /var/lib/logs`

// Node is one control-plane node. Its methods are for the test's own goroutine, unless
// they say otherwise.
type Node struct {
	Name, Address string
	cluster       *Cluster
	dir           string // what it has in place of the machine's /etc, /root and /var/lib
	pid           int    // of its first process
	client        *apiserver.Client
}

// boot starts a node without pods.
func (n *Node) boot(t testing.TB) {
	t.Helper()
	for _, folder := range []string{"etc", "root/bin", "root/.kube", "var/logs"} {
		if err := os.MkdirAll(filepath.Join(n.dir, folder), 0o755); err != nil {
			t.Fatalf("making folder of %s: %v", n.Name, err)
		}
	}
	process.Run(t, setUpLimit, "cp", "-a", "/etc/.", n.Path("/etc"))
	n.write(t, "/etc/kubernetes/manifests/.keep", "")
	child := process.Start(t, process.Config{
		Path: "unshare",
		Args: []string{"--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "--",
			"/bin/sh", "-c", bootScript, "boot", n.dir, n.cluster.cfg.Binaries, n.Name, n.cluster.cfg.Project},
		Log: process.NewLog(t, "kubelet-"+n.Name),
	})
	t.Cleanup(func() { n.showLogs(t) })
	child.WaitFor(t, startLimit, n.Name+" to be up", func(context.Context) error {
		list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", child.PID(), child.PID()))
		if err != nil {
			return err
		}
		if n.pid, err = strconv.Atoi(strings.TrimSpace(string(list))); err != nil {
			return err
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", n.pid))
		if err == nil && strings.TrimSpace(string(name)) != "kubelet" {
			err = fmt.Errorf("its first process is %q", name)
		}
		return err
	})
}

// showLogs shows what the pods of a failed test have printed last.
func (n *Node) showLogs(t testing.TB) {
	if !t.Failed() {
		return
	}
	const tail = 8 << 10
	for _, pod := range []string{"etcd", "kube-apiserver", "etcdseal"} {
		text, err := os.ReadFile(n.Path("/var/lib/logs/" + pod + ".log"))
		if err == nil {
			t.Logf("log of %s on %s:\n%s", pod, n.Name, text[max(0, len(text)-tail):])
		}
	}
}

// Path is where a file of the node, under /etc, /root or /var/lib, is on the machine.
func (n *Node) Path(file string) string {
	return filepath.Join(n.dir, strings.Replace(file, "/var/lib/", "/var/", 1))
}

func (n *Node) write(t testing.TB, file, text string) {
	t.Helper()
	path := n.Path(file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatalf("making folder on %s: %v", n.Name, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("writing %s on %s: %v", file, n.Name, err)
	}
}

// enter are the arguments of nsenter for a command on the node.
func (n *Node) enter() []string {
	return []string{"--target", strconv.Itoa(n.pid), "--net", "--mount", "--uts", "--pid", "--wdns=/root", "--",
		"env", "-i", "PATH=/root/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
}

// Client speaks to the node's kube-apiserver with the rights of admin.conf.
func (n *Node) Client() *apiserver.Client { return n.client }

// Ready returns what is not ready of the node's kube-apiserver. It may be called from any
// goroutine.
func (n *Node) Ready(ctx context.Context) error {
	if n.client == nil {
		return poll.Permanent{Err: fmt.Errorf("%s is not installed", n.Name)}
	}
	return n.client.Ready(ctx)
}

// useClient makes the client of the node's kube-apiserver, whose connections are made in
// the node's network.
func (n *Node) useClient(config *tls.Config) {
	n.client = apiserver.NewClient("https://"+n.Address+":6443", &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, DialContext: n.dial,
	})
}

// dial connects in the node's network, to an address without a name. A socket belongs to
// the network of the thread that makes it; the thread, which cannot be trusted with
// anything else afterwards, ends with its goroutine.
func (n *Node) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		conn, err := n.dialHere(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func (n *Node) dialHere(ctx context.Context, network, address string) (net.Conn, error) {
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", n.pid))
	if err != nil {
		return nil, err
	}
	defer space.Close()
	if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering the network of %s: %w", n.Name, err)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, address)
}

// Holds reports where a folder of the node's holds a text, so that a test can demand that
// it does or does not.
func (n *Node) Holds(t testing.TB, folder, text string) []string {
	t.Helper()
	var found []string
	root := n.Path(folder)
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			found = append(found, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatalf("reading %s of %s: %v", folder, n.Name, err)
	}
	return found
}
