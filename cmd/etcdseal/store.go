package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/crypto/dek/filestore"
)

// openStore opens the keyring's store. It does not wait for etcd.
func openStore(c *config.Config) (dek.Store, error) {
	if c.Keyring.Store == config.StoreFile {
		return filestore.Open(c.Keyring.Path)
	}
	secure, err := keyringTLS(c.Etcd)
	if err != nil {
		return nil, err
	}
	password, err := readPassword(c.Etcd.Auth.PasswordFile)
	if err != nil {
		return nil, err
	}
	return etcdstore.Dial(etcdstore.Config{
		Endpoints: c.Etcd.Endpoints,
		TLS:       secure,
		Username:  c.Etcd.Auth.Username,
		Password:  password,
		Prefix:    c.Keyring.Prefix,
	})
}

// readPassword reads a password without the newline at its end; without a file
// it returns "".
func readPassword(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading etcd.auth.passwordFile: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}

// keyringTLS returns the TLS configuration of the keyring's own connections to
// etcd, nil without https endpoints. The client certificate is read again at
// each handshake.
func keyringTLS(c config.Etcd) (*tls.Config, error) {
	if !strings.HasPrefix(c.Endpoints[0], "https://") {
		return nil, nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLS.ServerName}
	if c.TLS.CAFile != "" {
		pem, err := os.ReadFile(c.TLS.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading etcd.tls.caFile: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading etcd.tls.caFile: %s holds no certificate in PEM", c.TLS.CAFile)
		}
	}
	if c.TLS.CertFile != "" {
		secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
			return &certificate, err
		}
	}
	return secure, nil
}
