package kubeadm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"testing"

	"github.com/etcdseal/etcdseal/e2e/pki"
)

// clusterPKI are a cluster's authorities and what all its nodes share.
type clusterPKI struct {
	kubernetes, etcd *pki.Authority
	accounts         *ecdsa.PrivateKey // signs service accounts' tokens
}

func newClusterPKI(t testing.TB) *clusterPKI {
	t.Helper()
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making service account key: %v", err)
	}
	return &clusterPKI{kubernetes: pki.NewAuthority(t, "kubernetes"), etcd: pki.NewAuthority(t, "etcd-ca"), accounts: accounts}
}

// files are those below /etc/kubernetes/pki of a node, under kubeadm's names.
func (p *clusterPKI) files(t testing.TB, n *Node) map[string][]byte {
	t.Helper()
	files := map[string][]byte{
		"ca.crt": read(t, p.kubernetes.CAFile()), "ca.key": read(t, p.kubernetes.CAKeyFile(t)),
		"etcd/ca.crt": read(t, p.etcd.CAFile()), "etcd/ca.key": read(t, p.etcd.CAKeyFile(t)),
	}
	address := net.ParseIP(n.Address)
	for name, certificate := range map[string]pki.Files{
		"apiserver":             p.kubernetes.Server(t, "kubernetes", address),
		"apiserver-etcd-client": p.etcd.Client(t, "kube-apiserver-etcd-client"),
		"etcd/server":           p.etcd.Server(t, "etcd-server-"+n.Name, address),
		"etcd/peer":             p.etcd.Server(t, "etcd-peer-"+n.Name, address),
	} {
		files[name+".crt"], files[name+".key"] = read(t, certificate.CertFile), read(t, certificate.KeyFile)
	}
	private, err := x509.MarshalECPrivateKey(p.accounts)
	if err != nil {
		t.Fatalf("encoding service account key: %v", err)
	}
	public, err := x509.MarshalPKIXPublicKey(p.accounts.Public())
	if err != nil {
		t.Fatalf("encoding service account key: %v", err)
	}
	files["sa.key"] = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	files["sa.pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	return files
}

// admin is what admin.conf holds.
func (p *clusterPKI) admin(t testing.TB) (authority, certificate, key []byte) {
	t.Helper()
	files := p.kubernetes.Member(t, "kubernetes-admin", "system:masters")
	return read(t, p.kubernetes.CAFile()), read(t, files.CertFile), read(t, files.KeyFile)
}

func (p *clusterPKI) adminConfig(t testing.TB) *tls.Config {
	t.Helper()
	return p.kubernetes.ClientConfig(t, p.kubernetes.Member(t, "test-admin", "system:masters"))
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
