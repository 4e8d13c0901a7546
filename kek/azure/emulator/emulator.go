// Package emulator is an Azure Key Vault in memory, with the login services around
// it, for tests and for trying things out.
//
// It speaks the REST protocol of the keys API (version 2025-07-01) over TLS under
// the vaults' real host names, so that the real client verifies what it would
// verify: vaults and Managed HSMs with soft delete, versions, rotation policies,
// attributes and key_ops; Microsoft Entra's token endpoint for client secrets,
// client certificates and federated tokens; and the instance metadata service of
// managed identities. RSA-OAEP-256 and A256KW are real. Error bodies are those of
// the service, as recordings and issues show them. Faults are scripted (Inject),
// and every call is logged (Calls).
//
// It protects nothing: whoever reaches it can add faults through its Go API, and
// keys are in plain memory.
package emulator

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// DefaultTokenLifetime is how long an access token is good for.
const DefaultTokenLifetime = time.Hour

// IMDSAddress is where a virtual machine finds its metadata service.
const IMDSAddress = "169.254.169.254:80"

// LoginHosts are the names under which the login service answers: those of the
// public cloud, of China and of the US government.
var loginHosts = [...]string{"login.microsoftonline.com", "login.microsoft.com", "login.chinacloudapi.cn", "login.microsoftonline.us"}

// Config sets a Server up. The zero value is usable.
type Config struct {
	// Clock says what time it is; nil is time.Now. Certificates, tokens and
	// keys follow it; delays are those of package time.
	Clock func() time.Time
	// GenerateKey makes the RSA keys; nil is rsa.GenerateKey. Tests that make
	// many keys save time with a pool.
	GenerateKey func(bits int) (*rsa.PrivateKey, error)
	// TokenLifetime is how long an access token is good for; 0 is
	// DefaultTokenLifetime.
	TokenLifetime time.Duration
}

// Server is an emulated Azure: vaults and the login services. All methods are safe
// for concurrent use.
type Server struct {
	config Config
	ca     *authority
	tls    *http.Server // vaults and login
	imds   *http.Server
	proxy  *http.Server // leads to tls
	pipes  pipeListener // in-memory connections to tls
	plain  pipeListener // and to imds
	served sync.WaitGroup
	closed chan struct{}

	mu     sync.Mutex // guards all below, and the vaults
	vaults map[string]*Vault
	apps   []*app
	tokens map[string]*token
	faults []*Injected
	calls  []Call
}

// New returns a Server that answers on in-memory connections (Dial); Listen,
// ListenIMDS and ListenProxy add sockets. Close ends it.
func New(cfg Config) (*Server, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.GenerateKey == nil {
		cfg.GenerateKey = func(bits int) (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) }
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = DefaultTokenLifetime
	}
	s := &Server{config: cfg, vaults: map[string]*Vault{}, tokens: map[string]*token{}, closed: make(chan struct{})}
	ca, err := newAuthority(cfg.Clock, s.isKnown)
	if err != nil {
		return nil, fmt.Errorf("making the emulator's authority: %w", err)
	}
	s.ca = ca
	silent := log.New(io.Discard, "", 0)
	s.tls = &http.Server{
		Handler: http.HandlerFunc(s.serve), ErrorLog: silent,
		// Without tickets, so that a handshake needs no buffer in the
		// connection.
		TLSConfig: &tls.Config{GetCertificate: ca.certificate, MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true},
	}
	s.imds = &http.Server{Handler: http.HandlerFunc(s.serveIMDS), ErrorLog: silent}
	s.proxy = &http.Server{Handler: http.HandlerFunc(s.serveProxy), ErrorLog: silent}
	s.pipes, s.plain = newPipeListener(), newPipeListener()
	s.served.Go(func() { _ = s.tls.ServeTLS(s.pipes, "", "") }) // ErrServerClosed
	s.served.Go(func() { _ = s.imds.Serve(s.plain) })
	return s, nil
}

// Listen answers for vaults and login on a TCP address, over TLS, until Close.
func (s *Server) Listen(ctx context.Context, address string) (net.Addr, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.served.Go(func() { _ = s.tls.ServeTLS(l, "", "") })
	return l.Addr(), nil
}

// ListenIMDS answers for the metadata service on a TCP address, in plain HTTP,
// until Close.
func (s *Server) ListenIMDS(ctx context.Context, address string) (net.Addr, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.served.Go(func() { _ = s.imds.Serve(l) })
	return l.Addr(), nil
}

// Dial connects to the emulator in memory, whatever the name in address: to the
// metadata service for IMDSAddress, else to vaults and login. It fits
// http.Transport.DialContext, and may be used in a testing/synctest bubble in
// which the Server was made.
func (s *Server) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	if address == IMDSAddress {
		return s.plain.dial(ctx)
	}
	return s.pipes.dial(ctx)
}

// CA returns the certificate of the authority that signs for every host, in PEM.
func (s *Server) CA() []byte { return s.ca.pem }

// Close ends all connections, and returns when nothing of the Server runs any
// more.
func (s *Server) Close() error {
	s.mu.Lock()
	close(s.closed)
	s.mu.Unlock()
	err := errors.Join(s.tls.Close(), s.imds.Close(), s.proxy.Close())
	s.served.Wait()
	return err
}

// serve answers over TLS: the login hosts log in, the others are vaults.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	host := strings.ToLower(r.Host)
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	s.mu.Lock()
	v := s.vaults[name]
	s.mu.Unlock()
	switch {
	case v != nil:
		s.serveVault(v, w, r)
	case isLogin(name):
		s.serveLogin(w, r)
	default:
		http.Error(w, "Bad Request - Invalid Hostname", http.StatusBadRequest)
	}
}

// isKnown says whether there is a certificate for a name.
func (s *Server) isKnown(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vaults[name] != nil || isLogin(name)
}

// isLogin says whether the login service answers to a name: its own ones, and the
// machine's, for tests that cannot have names of their own.
func isLogin(name string) bool {
	for _, host := range loginHosts {
		if name == host {
			return true
		}
	}
	return name == "localhost" || net.ParseIP(strings.Trim(name, "[]")) != nil
}

func (s *Server) now() time.Time { return s.config.Clock() }

// newID returns 32 random hexadecimal digits, the form of versions.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// newGUID returns a random UUID, the form of request ids.
func newGUID() string {
	id := newID()
	return id[:8] + "-" + id[8:12] + "-4" + id[13:16] + "-8" + id[17:20] + "-" + id[20:]
}
