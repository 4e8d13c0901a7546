// Package certstest makes certificate authorities and certificates for tests. Keys are P-256 and are made anew in every test; nothing here is fit for
// other use.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a self-signed certificate authority. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Request says what a certificate is for. The zero value is a client certificate without any name.
type Request struct {
	// CommonName is the subject's CN. Empty: the subject is empty.
	CommonName string
	// DNSNames, IPs and URIs are the subject alternative names.
	DNSNames []string
	IPs      []net.IP
	URIs     []*url.URL
	// Server makes a certificate for a server, which is also good for a client; otherwise it is good for a client only.
	Server bool
	// NotAfter is the time of expiry. Zero is one hour from now.
	NotAfter time.Time
}

// Pair is a certificate with its key, in PEM.
type Pair struct {
	Cert, Key []byte
}

// NewCA makes an authority with the given common name.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber:          serial(t),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("creating CA certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parsing CA certificate: %v", err)
	}
	return &CA{cert: cert, key: key}
}

// PEM returns the authority's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Pool returns a pool that holds the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Write writes the authority's certificate to dir and returns the file's name.
func (ca *CA) Write(t testing.TB, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "ca.crt")
	Replace(t, file, ca.PEM())
	return file
}

// Issue makes a certificate signed by the authority.
func (ca *CA) Issue(t testing.TB, req Request) Pair {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t),
		Subject:      pkix.Name{CommonName: req.CommonName},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     req.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:     req.DNSNames,
		IPAddresses:  req.IPs,
		URIs:         req.URIs,
	}
	if req.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if req.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatalf("creating certificate: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encoding key: %v", err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// Server makes a server certificate for localhost, 127.0.0.1 and ::1, without a common name.
func (ca *CA) Server(t testing.TB) Pair {
	t.Helper()
	return ca.Issue(t, Request{Server: true, DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}})
}

// TLS returns the pair for use in a tls.Config.
func (p Pair) TLS(t testing.TB) tls.Certificate {
	t.Helper()
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatalf("using certificate: %v", err)
	}
	return cert
}

// Write writes the pair to dir as name.crt and name.key, in place of any that are there, and returns the files' names.
func (p Pair) Write(t testing.TB, dir, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	Replace(t, certFile, p.Cert)
	Replace(t, keyFile, p.Key)
	return certFile, keyFile
}

// Replace puts a new file in place of an old one in one step, as certificate managers do, so that the change shows to anyone who looks at the file's
// identity even within the resolution of the file system's clock.
func Replace(t testing.TB, file string, content []byte) {
	t.Helper()
	temp := file + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		t.Fatalf("writing %s: %v", temp, err)
	}
	if err := os.Rename(temp, file); err != nil {
		t.Fatalf("replacing %s: %v", file, err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("generating key: %v", err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatalf("generating serial number: %v", err)
	}
	return n
}
