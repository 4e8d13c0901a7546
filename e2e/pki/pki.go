// Package pki makes the certificates of an end-to-end test: one authority for
// each test, with server and client certificates under it, written as PEM
// files because that is what the programs under test read.
//
// The keys live in the test's temporary folder and nowhere else.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// lifetime is how long a certificate is valid; a test ends long before.
const lifetime = 24 * time.Hour

// Authority is a certificate authority with its own self-signed root. It is
// not safe for concurrent use.
type Authority struct {
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	pem    []byte
	serial int64
}

// Files names the PEM files of one certificate and its key.
type Files struct {
	CertFile string
	KeyFile  string
}

// NewAuthority makes an authority that writes its files into a temporary
// folder of t.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(lifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("making authority %s: %v", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parsing authority %s: %v", name, err)
	}
	a := &Authority{dir: t.TempDir(), cert: cert, key: key, serial: 1}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	writeFile(t, a.CAFile(), a.pem)
	return a
}

// CAFile is the PEM file of the authority's root.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, "ca.pem") }

// CAKeyFile is the PEM file of the root's key, for a test in which somebody else signs.
func (a *Authority) CAKeyFile(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatalf("encoding key of the authority: %v", err)
	}
	file := filepath.Join(a.dir, "ca-key.pem")
	writeFile(t, file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return file
}

// Server issues a certificate for a server on the loopback addresses and those given, into
// files that begin with name. Issuing again under the same name replaces the
// files, as a certificate manager would.
func (a *Authority) Server(t testing.TB, name string, addresses ...net.IP) Files {
	t.Helper()
	return a.issue(t, name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{"localhost", name},
		IPAddresses: append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, addresses...),
		// etcd's own gRPC gateway dials its server with the server's
		// certificate, so a server certificate is good for a client too.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// Client issues a client certificate whose common name and DNS name are name.
func (a *Authority) Client(t testing.TB, name string) Files {
	t.Helper()
	return a.issue(t, name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Member issues a client certificate for name as one of a group, in Kubernetes' sense.
func (a *Authority) Member(t testing.TB, name, group string) Files {
	t.Helper()
	return a.issue(t, name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{group}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// NamelessClient issues a client certificate without a common name, which is
// what a proxy must show to etcd: etcd takes a common name for a user.
func (a *Authority) NamelessClient(t testing.TB, name string) Files {
	t.Helper()
	return a.issue(t, name, &x509.Certificate{
		DNSNames:    []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// ClientConfig is a TLS configuration that trusts the authority and, unless
// client is the zero Files, shows that certificate.
func (a *Authority) ClientConfig(t testing.TB, client Files) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if client != (Files{}) {
		pair, err := tls.LoadX509KeyPair(client.CertFile, client.KeyFile)
		if err != nil {
			t.Fatalf("loading client certificate: %v", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// issue signs template with a new key and writes both into files, each
// replaced by a rename so that no reader sees half a file.
func (a *Authority) issue(t testing.TB, name string, template *x509.Certificate) Files {
	t.Helper()
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(lifetime)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatalf("issuing certificate %s: %v", name, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encoding key of %s: %v", name, err)
	}
	files := Files{
		CertFile: filepath.Join(a.dir, name+".pem"),
		KeyFile:  filepath.Join(a.dir, name+"-key.pem"),
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	writeFile(t, files.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	writeFile(t, files.CertFile, bytes.Join([][]byte{chain, a.pem}, nil))
	return files
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making key: %v", err)
	}
	return key
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		t.Fatalf("writing %s: %v", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatalf("replacing %s: %v", path, err)
	}
}
