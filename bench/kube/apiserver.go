package kube

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

const (
	// secretsPrefix is where secrets are in etcd.
	secretsPrefix = "/registry/secrets/"
	// providerName is that of the plugin in kube-apiserver's configuration. It is in every value.
	providerName = "kms"
	// kmsPrefix begins every value that kube-apiserver encrypted with the plugin.
	kmsPrefix = "k8s:enc:kms:v2:" + providerName + ":"
	// envelopeMagic begins every value that etcdseal sealed (docs/FORMAT.md).
	envelopeMagic = "\x00es"
)

// startServer starts kube-apiserver at an address of its own and waits until it is ready.
func (s *side) startServer(ctx context.Context, flags ...string) (err error) {
	if s.address, err = freeAddress(); err != nil {
		return err
	}
	s.client = newClient(s.address, s.stage.certs.Client, maxInFlight)
	if err := s.launchServer(flags...); err != nil {
		return err
	}
	return s.waitReady(ctx)
}

// launchServer starts kube-apiserver at the side's address. Further flags win over those before.
func (s *side) launchServer(flags ...string) error {
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return fmt.Errorf("splitting an address: %w", err)
	}
	c := s.stage.certs
	args := []string{
		"--etcd-servers=" + s.storage,
		"--bind-address=" + host, "--secure-port=" + port, "--tls-cert-file=" + c.ServerCert, "--tls-private-key-file=" + c.ServerKey,
		// Loopback is refused here. Nothing connects to this address, which is reserved for documentation (RFC 5737).
		"--advertise-address=192.0.2.1", "--cert-dir=" + s.dir, "--token-auth-file=" + s.stage.files.tokens,
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + s.stage.files.accounts,
		"--service-account-signing-key-file=" + s.stage.files.accounts, "--service-cluster-ip-range=10.96.0.0/24",
		"--authorization-mode=AlwaysAllow", "--anonymous-auth=false",
		// Without snapshots of the watch cache, a list at an exact resource version is read from etcd. Nothing else depends on them but the comparison
		// of the cache with etcd every five minutes, which would fall into some side's turn.
		"--feature-gates=ListFromCacheSnapshot=false,DetectCacheInconsistency=false",
	}
	if strings.HasPrefix(s.storage, "https://") { // with these flags, a unix socket is expected to speak TLS, too
		args = append(args, "--etcd-cafile="+c.CA, "--etcd-certfile="+c.ClientCert, "--etcd-keyfile="+c.ClientKey)
	}
	if s.encryption != "" {
		args = append(args, "--encryption-provider-config="+s.encryption)
	}
	s.server, err = launch(s.dir, "kube-apiserver", s.stage.cfg.APIServer, append(args, flags...)...)
	return err
}

// waitReady waits until kube-apiserver is ready for everything.
func (s *side) waitReady(ctx context.Context) error {
	return waitUntil(ctx, "kube-apiserver to be ready", s.server, s.client.ready)
}

// startPlugin starts a KMS v2 plugin with a new key and writes the encryption configuration that names it.
func (s *side) startPlugin(newKey func() ([]byte, error)) error {
	key, err := newKey()
	if err != nil {
		return fmt.Errorf("making the plugin's key: %w", err)
	}
	socket, keyFile := filepath.Join(s.dir, "kms.sock"), filepath.Join(s.dir, "kms.key")
	s.encryption = filepath.Join(s.dir, "encryption.yaml")
	config := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n" +
		fmt.Sprintf("  - kms: {apiVersion: v2, name: %s, endpoint: %q}\n  - identity: {}\n", providerName, "unix://"+socket)
	for path, data := range map[string][]byte{keyFile: key, s.encryption: []byte(config)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("writing for the plugin: %w", err)
		}
	}
	s.between, err = launch(s.dir, "kmsplugin", s.stage.cfg.Plugin, socket, keyFile)
	return err
}

// newAESKey is a key file of the plugin with an AES-256 key, the cheapest and shortest way to wrap.
func newAESKey() ([]byte, error) {
	raw := make([]byte, 32)
	rand.Read(raw)
	return []byte(hex.EncodeToString(raw)), nil
}

// newRSAKey is one with an RSA key of 2048 bits, as a Key Vault has.
func newRSAKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
