// Package apiserver runs real kube-apiservers and speaks to them in plain
// HTTPS and JSON, which needs none of Kubernetes' client libraries.
package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/pki"
	"github.com/etcdseal/etcdseal/e2e/process"
)

const (
	startLimit = 120 * time.Second
	stopLimit  = 120 * time.Second

	// token is the bearer token of the one user, a cluster administrator.
	token = "e2e-administrator"
)

// Config says how to run a kube-apiserver. Binaries, Authority, Accounts and
// EtcdServers must be set.
type Config struct {
	// Binaries is the folder that holds kube-apiserver.
	Binaries string
	// Name tells several servers of one test apart in the logs.
	Name string
	// Authority issues the serving certificate and, for an EtcdServers of
	// https, is trusted there and issues the client certificate.
	Authority *pki.Authority
	// Accounts is the key for service account tokens, one for all servers of a
	// cluster.
	Accounts *AccountKey
	// EtcdServers is the value of --etcd-servers.
	EtcdServers string
	// Overrides is the value of --etcd-servers-overrides, empty for none.
	Overrides string
	// EtcdTLS passes a client certificate and the authority to both.
	EtcdTLS bool
	// Flags are further flags, as on the command line.
	Flags []string
}

// Server is one kube-apiserver on loopback. It keeps its address over restarts.
// Its methods are for the test's own goroutine.
type Server struct {
	owner   testing.TB
	cfg     Config
	dir     string
	address string
	serving pki.Files
	etcd    pki.Files
	log     *process.Log
	process *process.Process
	client  *Client
}

// AccountKey is the file with the key that signs service account tokens.
type AccountKey struct{ file string }

// NewAccountKey makes a key in a temporary folder of t.
func NewAccountKey(t testing.TB) *AccountKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making service account key: %v", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatalf("encoding service account key: %v", err)
	}
	file := filepath.Join(t.TempDir(), "accounts.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatalf("writing service account key: %v", err)
	}
	return &AccountKey{file: file}
}

// Start starts a server and waits until it is ready. It is killed when t ends,
// however often it was started again by then.
func Start(t testing.TB, cfg Config) *Server {
	t.Helper()
	name := "kube-apiserver" + cfg.Name
	s := &Server{
		owner:   t,
		cfg:     cfg,
		dir:     t.TempDir(),
		address: process.FreeAddress(t),
		serving: cfg.Authority.Server(t, name),
		log:     process.NewLog(t, name),
	}
	if cfg.EtcdTLS {
		s.etcd = cfg.Authority.Client(t, name+"-etcd-client")
	}
	s.client = newClient("https://"+s.address, cfg.Authority.ClientConfig(t, pki.Files{}))
	tokens := fmt.Sprintf("%s,admin,1,\"system:masters\"\n", token)
	if err := os.WriteFile(s.tokenFile(), []byte(tokens), 0o600); err != nil {
		t.Fatalf("writing token file: %v", err)
	}
	s.Run(t)
	return s
}

// Run starts the server again after Stop or Kill and waits until it is ready.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	s.process = process.Start(t, process.Config{
		Path:  filepath.Join(s.cfg.Binaries, "kube-apiserver"),
		Args:  s.args(t),
		Log:   s.log,
		Owner: s.owner,
	})
	s.process.WaitFor(t, startLimit, "kube-apiserver to be ready", func(ctx context.Context) error {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return s.client.Ready(attempt)
	})
}

// UseEtcd changes --etcd-servers for the next Run.
func (s *Server) UseEtcd(servers string) { s.cfg.EtcdServers = servers }

// Stop ends the server by SIGTERM, which lets calls in flight finish, and waits.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.process.Signal(t, syscall.SIGTERM)
	s.process.Wait(t, stopLimit)
}

// Kill ends the server by SIGKILL and waits.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.process.Kill(t)
}

// LogText is what the server has logged so far.
func (s *Server) LogText(t testing.TB) string { return s.log.Text(t) }

// Client is a client with the rights of a cluster administrator.
func (s *Server) Client() *Client { return s.client }

func (s *Server) tokenFile() string { return filepath.Join(s.dir, "tokens.csv") }

func (s *Server) args(t testing.TB) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatalf("splitting address: %v", err)
	}
	args := []string{
		"--etcd-servers=" + s.cfg.EtcdServers,
		"--bind-address=" + host,
		"--secure-port=" + port,
		// Loopback is refused here. Nothing connects to this address, which
		// is reserved for documentation (RFC 5737).
		"--advertise-address=192.0.2.1",
		"--cert-dir=" + s.dir,
		"--tls-cert-file=" + s.serving.CertFile,
		"--tls-private-key-file=" + s.serving.KeyFile,
		"--token-auth-file=" + s.tokenFile(),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + s.cfg.Accounts.file,
		"--service-account-signing-key-file=" + s.cfg.Accounts.file,
		"--service-cluster-ip-range=10.96.0.0/24",
		"--authorization-mode=AlwaysAllow",
		"--anonymous-auth=false",
		"--shutdown-delay-duration=0s",
	}
	if s.cfg.Overrides != "" {
		args = append(args, "--etcd-servers-overrides="+s.cfg.Overrides)
	}
	if s.cfg.EtcdTLS {
		args = append(args, "--etcd-cafile="+s.cfg.Authority.CAFile(),
			"--etcd-certfile="+s.etcd.CertFile, "--etcd-keyfile="+s.etcd.KeyFile)
	}
	return append(args, s.cfg.Flags...)
}
