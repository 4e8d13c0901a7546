package kubeadm

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"
)

// install writes what `kubeadm init` writes, and the kubelet starts it.
func (n *Node) install(t testing.TB) {
	t.Helper()
	for file, data := range n.cluster.pki.files(t, n) {
		n.write(t, "/etc/kubernetes/pki/"+file, string(data))
	}
	n.write(t, "/etc/kubernetes/admin.conf", n.adminConf(t))
	if text := n.cluster.cfg.Encryption; text != "" {
		n.write(t, "/etc/kubernetes/enc/enc.yaml", text)
	}
	n.write(t, "/root/bin/scp", scp(n.cluster.dir))
	if err := os.Chmod(n.Path("/root/bin/scp"), 0o755); err != nil {
		t.Fatalf("making scp on %s: %v", n.Name, err)
	}
	n.write(t, "/etc/kubernetes/manifests/etcd.yaml", n.etcdManifest())
	n.write(t, "/etc/kubernetes/manifests/kube-apiserver.yaml", n.apiserverManifest())
	n.useClient(n.cluster.pki.adminConfig(t))
}

// scp stands in for scp between nodes: they have no accounts to log in to.
func scp(dir string) string {
	return fmt.Sprintf(`#!/bin/sh -e
# scp [-p] FILE HOST:FOLDER/
[ "$1" != -p ] || shift
host=${2%%%%:*}
cp -p "$1" "%s/$host${2#*:}"
`, dir)
}

func (n *Node) adminConf(t testing.TB) string {
	t.Helper()
	encode := base64.StdEncoding.EncodeToString
	authority, certificate, key := n.cluster.pki.admin(t)
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster: {server: "https://%s:6443", certificate-authority-data: %s}
users:
- name: kubernetes-admin
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: kubernetes-admin@kubernetes
  context: {cluster: kubernetes, user: kubernetes-admin}
current-context: kubernetes-admin@kubernetes
`, n.Address, encode(authority), encode(certificate), encode(key))
}

// etcdManifest is what kubeadm writes, and that nothing is synced to the disk: the machine
// is not switched off in a test. It is shared by more nodes than it has processors for: a
// member may have none for a while, which must not make the others elect another leader,
// since clients' calls fail then, whatever a guide does.
func (n *Node) etcdManifest() string {
	const pki = "/etc/kubernetes/pki/etcd/"
	return manifest("etcd", []string{
		"etcd",
		"--advertise-client-urls=https://" + n.Address + ":2379",
		"--cert-file=" + pki + "server.crt",
		"--client-cert-auth=true",
		"--data-dir=/var/lib/etcd",
		"--election-timeout=3000",
		"--heartbeat-interval=300",
		"--initial-advertise-peer-urls=https://" + n.Address + ":2380",
		"--initial-cluster=" + n.cluster.initialCluster(),
		"--key-file=" + pki + "server.key",
		"--listen-client-urls=https://127.0.0.1:2379,https://" + n.Address + ":2379",
		"--listen-metrics-urls=http://127.0.0.1:2381",
		"--listen-peer-urls=https://" + n.Address + ":2380",
		"--name=" + n.Name,
		"--peer-cert-file=" + pki + "peer.crt",
		"--peer-client-cert-auth=true",
		"--peer-key-file=" + pki + "peer.key",
		"--peer-trusted-ca-file=" + pki + "ca.crt",
		"--snapshot-count=10000",
		"--trusted-ca-file=" + pki + "ca.crt",
		"--unsafe-no-fsync",
		"--watch-progress-notify-interval=5s",
	})
}

func (n *Node) apiserverManifest() string {
	const pki = "/etc/kubernetes/pki/"
	command := []string{
		"kube-apiserver",
		"--advertise-address=" + n.Address,
		"--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--client-ca-file=" + pki + "ca.crt",
		"--enable-bootstrap-token-auth=true",
	}
	if n.cluster.cfg.Encryption != "" {
		command = append(command, "--encryption-provider-config=/etc/kubernetes/enc/enc.yaml")
	}
	return manifest("kube-apiserver", append(command,
		"--etcd-cafile="+pki+"etcd/ca.crt",
		"--etcd-certfile="+pki+"apiserver-etcd-client.crt",
		"--etcd-keyfile="+pki+"apiserver-etcd-client.key",
		"--etcd-servers=https://127.0.0.1:2379",
		"--secure-port=6443",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+pki+"sa.pub",
		"--service-account-signing-key-file="+pki+"sa.key",
		"--service-cluster-ip-range=10.96.0.0/12",
		"--tls-cert-file="+pki+"apiserver.crt",
		"--tls-private-key-file="+pki+"apiserver.key",
	))
}

// manifest is a static pod's, in kubeadm's form: an argument a line.
func manifest(name string, command []string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  labels: {component: %[1]s, tier: control-plane}
  name: %[1]s
  namespace: kube-system
spec:
  containers:
  - command:
    - %[2]s
    image: %[1]s
    name: %[1]s
  hostNetwork: true
  priorityClassName: system-node-critical
`, name, strings.Join(command, "\n    - "))
}
