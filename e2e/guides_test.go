package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/e2e/binaries"
	"github.com/etcdseal/etcdseal/e2e/guide"
	"github.com/etcdseal/etcdseal/e2e/kubeadm"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// kubernetesEncryption is an EncryptionConfiguration as the guide wants it: identity stands
// last.
const kubernetesEncryption = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - PROVIDER
  - identity: {}
`

// kmsSocket is where a node's KMS v2 plugin listens.
const kmsSocket = "/etc/kubernetes/enc/kms.sock"

// kubernetesProviders are what the guide is for. The key is the test's.
var kubernetesProviders = map[string]string{
	"KMS v2":    "kms: {apiVersion: v2, name: plugin, endpoint: 'unix://" + kmsSocket + "'}",
	"aescbc":    "aescbc: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}",
	"secretbox": "secretbox: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}",
}

// TestGuides follows the guides on control-plane nodes as kubeadm leaves them, with the
// commands that they print, while clients write and read secrets through all nodes.
func TestGuides(t *testing.T) {
	if err := kubeadm.Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Run("all traffic", func(t *testing.T) {
		t.Parallel()
		f := newGuideFollower(t, "")
		f.follow(t, "enable.md", "5b. Secrets alone")
		f.holdsSecrets(t, false)
		f.traffic.pause(func() { f.follow(t, "restore.md") })
		f.follow(t, "leave.md")
		f.holdsSecrets(t, true)
		f.traffic.finish(t)
	})
	for name, provider := range kubernetesProviders {
		t.Run("secrets alone, "+name, func(t *testing.T) {
			t.Parallel()
			f := newGuideFollower(t, strings.Replace(kubernetesEncryption, "PROVIDER", provider, 1))
			f.follow(t, "enable.md", "5a. All traffic", "7. Seal what is there", "8. Refuse plaintext")
			f.follow(t, "from-kubernetes-encryption.md")
			f.holdsSecrets(t, false)
			f.follow(t, "to-kubernetes-encryption.md")
			f.follow(t, "leave.md")
			f.holdsSecrets(t, false)
			f.traffic.finish(t)
		})
	}
}

// guideFollower follows guides on a cluster in use.
type guideFollower struct {
	cluster *kubeadm.Cluster
	traffic *traffic
}

func newGuideFollower(t *testing.T, encryption string) *guideFollower {
	t.Helper()
	if _, err := buildOthers(); err != nil {
		t.Fatal(err)
	}
	folder, err := binaries.Build(t.Context(), os.Stderr, binaries.Etcdseal, binaries.Kubectl, binaries.Kubelet)
	if err != nil {
		t.Fatal(err)
	}
	project, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	f := &guideFollower{cluster: kubeadm.Start(t, kubeadm.Config{
		Binaries: folder, Nodes: 2, Encryption: encryption, Project: project,
		Prepare: func(n *kubeadm.Node) { servePlugin(t, n.Path(kmsSocket)) },
	})}
	f.traffic = startTraffic(t, f.cluster)
	return f
}

// servePlugin serves a node's KMS v2 plugin; all nodes have the same key.
func servePlugin(t *testing.T, socket string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatalf("making folder of the plugin: %v", err)
	}
	stop, err := kmstest.Serve(kmstest.New("guides", "key-1"), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// follow runs a guide's commands in the guide's order, but for the sections that are left
// out, which must exist. Each guide has a new shell on each node.
func (f *guideFollower) follow(t *testing.T, name string, leftOut ...string) {
	t.Helper()
	file := filepath.Join("..", "docs", "guides", name)
	blocks, err := guide.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	shells := map[string]*kubeadm.Shell{}
	for _, n := range f.cluster.Nodes {
		shells[n.Name] = n.Shell(t)
	}
	out := map[string]bool{}
	for _, section := range leftOut {
		out[section] = false
	}
	for _, b := range blocks {
		if _, left := out[b.Section]; left {
			out[b.Section] = true
			continue
		}
		ran := false
		for _, n := range f.cluster.Nodes {
			if b.Nodes == "each" || b.Nodes == n.Name {
				ran = true
				t.Logf("%s:%d on %s, %s", name, b.Line, n.Name, b.Section)
				t.Logf("%s", shells[n.Name].Run(t, b.Script))
				f.traffic.check(t)
			}
		}
		if !ran {
			t.Errorf("%s:%d: there is no node %q", name, b.Line, b.Nodes)
		}
	}
	for section, there := range out {
		if !there {
			t.Errorf("%s has no section %q with commands to leave out", name, section)
		}
	}
}

// holdsSecrets demands that the members of etcd hold plaintext of secrets, or none.
func (f *guideFollower) holdsSecrets(t *testing.T, want bool) {
	t.Helper()
	const script = "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt --cert=/etc/kubernetes/pki/etcd/server.crt" +
		" --key=/etc/kubernetes/pki/etcd/server.key get --prefix /registry/secrets/"
	for _, n := range f.cluster.Nodes {
		text := n.Shell(t).Run(t, script)
		if got := strings.Count(text, "/registry/secrets/default/quiet-"); got != quietNames {
			t.Errorf("etcd has %d secrets that are only read, want %d", got, quietNames)
		}
		if got := strings.Contains(text, f.traffic.marker); got != want {
			t.Errorf("etcd holds plaintext of secrets: %t, want %t", got, want)
		}
	}
}
