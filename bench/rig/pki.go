package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki is a throw-away certificate authority and the certificates of one run, as files.
type pki struct {
	ca                    string
	serverCert, serverKey string // for 127.0.0.1
	clientCert, clientKey string // without a common name, which etcd would take for a user
	client                *tls.Config
	authority             *x509.Certificate
	authorityKey          *ecdsa.PrivateKey
	dir                   string
	notBefore, notAfter   time.Time
}

// newPKI writes the authority, a server certificate for 127.0.0.1 and a client certificate into dir. All are ECDSA P-256.
func newPKI(dir string, now time.Time) (*pki, error) {
	p := &pki{dir: dir, notBefore: now.Add(-time.Hour), notAfter: now.Add(24 * time.Hour)}
	var err error
	if p.authorityKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("making CA key: %w", err)
	}
	p.authority = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, NotBefore: p.notBefore, NotAfter: p.notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, p.authority, p.authority, &p.authorityKey.PublicKey, p.authorityKey)
	if err != nil {
		return nil, fmt.Errorf("making CA certificate: %w", err)
	}
	if p.ca, err = p.write("ca.crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	if p.serverCert, p.serverKey, err = p.issue("server", 2, x509.ExtKeyUsageServerAuth, net.IPv4(127, 0, 0, 1)); err != nil {
		return nil, err
	}
	if p.clientCert, p.clientKey, err = p.issue("client", 3, x509.ExtKeyUsageClientAuth); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(p.clientCert, p.clientKey)
	if err != nil {
		return nil, fmt.Errorf("loading client certificate: %w", err)
	}
	roots := x509.NewCertPool()
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing CA certificate: %w", err)
	}
	roots.AddCert(authority)
	p.client = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	return p, nil
}

// issue writes NAME.crt and NAME.key. etcd's own gateway uses the server's certificate as a client's, so both usages are allowed to it.
func (p *pki) issue(name string, serial int64, usage x509.ExtKeyUsage, ips ...net.IP) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("making key of %s: %w", name, err)
	}
	usages := []x509.ExtKeyUsage{usage}
	if usage == x509.ExtKeyUsageServerAuth {
		usages = append(usages, x509.ExtKeyUsageClientAuth)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{Organization: []string{"bench"}}, NotBefore: p.notBefore, NotAfter: p.notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages, IPAddresses: ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.authority, &private.PublicKey, p.authorityKey)
	if err != nil {
		return "", "", fmt.Errorf("making certificate of %s: %w", name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", fmt.Errorf("encoding key of %s: %w", name, err)
	}
	if cert, err = p.write(name+".crt", "CERTIFICATE", der); err != nil {
		return "", "", err
	}
	key, err = p.write(name+".key", "PRIVATE KEY", pkcs8)
	return cert, key, err
}

func (p *pki) write(name, kind string, der []byte) (string, error) {
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return "", fmt.Errorf("writing %s: %w", name, err)
	}
	return path, nil
}
