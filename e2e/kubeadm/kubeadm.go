// Package kubeadm makes control-plane nodes as kubeadm leaves them: a node has a network,
// mounts and process ids of its own (Linux namespaces), certificates under
// /etc/kubernetes/pki, an admin.conf, and static pods for etcd and kube-apiserver under
// /etc/kubernetes/manifests, which a stand-in for the kubelet runs. So the commands of a
// guide do on it what they do on a real node, and touch nothing of the machine's own.
//
// It needs root. Nothing of a node outlives its test: when the first process of a process
// namespace ends, the kernel ends all others.
package kubeadm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/poll"
	"github.com/etcdseal/etcdseal/e2e/process"
)

const (
	startLimit = 120 * time.Second
	// setUpLimit bounds a command that sets up a node.
	setUpLimit = 60 * time.Second
)

// Config says what to make. Binaries and Nodes must be set.
type Config struct {
	// Binaries is the folder with all programs, which is /usr/local/bin on the nodes.
	Binaries string
	// Nodes is how many there are: cp1, cp2, ...
	Nodes int
	// Encryption is the EncryptionConfiguration of the kube-apiservers, empty for none.
	Encryption string
	// Prepare, unless nil, is called with each node before anything runs on it.
	Prepare func(*Node)
	// Project is the folder of the project, at /root/etcdseal on the nodes.
	Project string
}

// Cluster is a Kubernetes control plane with an etcd member on each node.
type Cluster struct {
	Nodes []*Node
	cfg   Config
	dir   string // holds a folder for each node, with what it has in place of the machine's
	pki   *clusterPKI
}

// Available reports why nodes cannot be made here, nil if they can.
func Available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("nodes need root, for namespaces")
	}
	for _, program := range []string{"unshare", "nsenter", "ip", "curl", "openssl", "pgrep"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("nodes need %s: %w", program, err)
		}
	}
	return nil
}

// Start starts the nodes and waits until every kube-apiserver is ready.
func Start(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	c := &Cluster{cfg: cfg, dir: t.TempDir(), pki: newClusterPKI(t)}
	for i := range cfg.Nodes {
		n := &Node{Name: fmt.Sprintf("cp%d", i+1), Address: fmt.Sprintf("10.0.0.%d", i+4), cluster: c}
		n.dir = filepath.Join(c.dir, n.Name)
		c.Nodes = append(c.Nodes, n)
	}
	for _, n := range c.Nodes {
		n.boot(t)
		if cfg.Prepare != nil {
			cfg.Prepare(n)
		}
	}
	c.connect(t)
	for _, n := range c.Nodes {
		n.install(t)
	}
	for _, n := range c.Nodes {
		poll.Until(t, startLimit, "kube-apiserver of "+n.Name+" to be ready", n.Ready)
	}
	return c
}

// connect makes a network of the nodes: one of them is a network by itself, two have a
// cable between them.
func (c *Cluster) connect(t testing.TB) {
	t.Helper()
	first := c.Nodes[0]
	switch len(c.Nodes) {
	case 1:
		first.network(t, "ip", "link", "add", "eth0", "type", "dummy")
	case 2:
		first.network(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(c.Nodes[1].pid))
	default:
		t.Fatalf("making %d nodes: one or two can be connected", len(c.Nodes))
	}
	for _, n := range c.Nodes {
		n.network(t, "ip", "link", "set", "lo", "up")
		n.network(t, "ip", "address", "add", n.Address+"/24", "dev", "eth0")
		n.network(t, "ip", "link", "set", "eth0", "up")
	}
}

// initialCluster is what etcd takes for its members.
func (c *Cluster) initialCluster() string {
	var members []string
	for _, n := range c.Nodes {
		members = append(members, n.Name+"=https://"+n.Address+":2380")
	}
	return strings.Join(members, ",")
}

// network runs a command in the node's network, and else on the machine, so that it can
// name another node by its process.
func (n *Node) network(t testing.TB, args ...string) {
	t.Helper()
	process.Run(t, setUpLimit, "nsenter", append([]string{"--target", strconv.Itoa(n.pid), "--net", "--"}, args...)...)
}
