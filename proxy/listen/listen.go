// Package listen opens the socket that etcd's clients connect to and decides who may use it.
//
// A TCP listener speaks TLS 1.2 or later and asks for a client certificate of a known CA; plain TCP, or TLS without client certificates, must be asked for
// with Insecure. A unix socket is guarded by its file mode, 0600. The threat covered is a caller without the right to connect: everybody who gets through
// reads opened secrets as far as etcd's own authentication lets them.
//
// Accept never waits for a peer: the TLS handshake belongs to Handshake, which each connection's own goroutine calls. Certificates and the client CA are
// read again when their files change; a connection that is open already is not affected.
package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/proxy/certs"
)

// DefaultHandshakeTimeout bounds a TLS handshake when Config.HandshakeTimeout is zero.
const DefaultHandshakeTimeout = 10 * time.Second

// Protocols that Handshake can report, as registered for ALPN (RFC 7301).
const (
	ProtocolHTTP2 = "h2"
	ProtocolHTTP1 = "http/1.1"
)

// Config describes a listener.
type Config struct {
	// Address is "host:port" (an empty host is every address of the machine, port 0 is any free one) or "unix:///path". The directory of a unix socket
	// must exist and be writable, since the socket is made in a private directory there and moved into place.
	Address string
	// Insecure allows TCP without client certificates: plain TCP if CertFile is empty, TLS that any client may use if it is set.
	Insecure bool
	// CertFile and KeyFile are the server's certificate chain and key in PEM. Empty on a unix socket, or on TCP with Insecure: no TLS.
	CertFile, KeyFile string
	// ClientCAFile holds the CA certificates, in PEM, one of which must have issued a client's certificate.
	ClientCAFile string
	// AllowedNames, if not empty, admits only clients whose verified certificate has one of them as common name, DNS name or URI. DNS names are compared
	// without regard to case, the others byte for byte; there are no wildcards.
	AllowedNames []string
	// HandshakeTimeout bounds a TLS handshake. Zero is DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
	// ReloadInterval is the least time between two looks at the certificate files. Zero is certs.DefaultInterval.
	ReloadInterval time.Duration
	// Now is the clock of ReloadInterval. Nil is time.Now.
	Now func() time.Time
	// Logger gets reloads, and failures of Accept that pass. Nil logs nothing.
	Logger *slog.Logger
}

// Validate reports everything that contradicts itself or is missing, joined. It does not look at files.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("validating listener: "+format, args...))
	}
	network, _, err := c.target()
	if err != nil {
		errs = append(errs, err)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("certFile and keyFile are needed together")
	}
	if c.ClientCAFile != "" && c.CertFile == "" {
		bad("clientCAFile needs certFile and keyFile")
	}
	if c.ClientCAFile != "" && c.Insecure {
		bad("clientCAFile contradicts insecure")
	}
	if len(c.AllowedNames) > 0 && c.ClientCAFile == "" {
		bad("allowedNames needs clientCAFile")
	}
	for i, name := range c.AllowedNames {
		if name == "" {
			bad("allowedNames[%d] is empty", i)
		}
	}
	if network == "tcp" && !c.Insecure && c.ClientCAFile == "" {
		bad("TCP needs certFile, keyFile and clientCAFile; set insecure to serve every caller that can reach the address")
	}
	if c.HandshakeTimeout < 0 {
		bad("the handshake timeout is negative")
	}
	return errors.Join(errs...)
}

// target splits the address into a network ("tcp" or "unix") and what that network calls an address.
func (c Config) target() (network, address string, err error) {
	if path, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return "unix", "", fmt.Errorf("validating listener: address %q needs an absolute path, as in unix:///run/etcdseal/etcd.sock", c.Address)
		}
		return "unix", path, nil
	}
	if _, port, err := net.SplitHostPort(c.Address); err != nil || port == "" {
		return "tcp", "", fmt.Errorf("validating listener: address %q is neither host:port nor unix:///path", c.Address)
	}
	return "tcp", c.Address, nil
}

// Listener is an open listener. It is safe for concurrent use.
type Listener struct {
	net     net.Listener
	addr    net.Addr
	remove  func() error  // takes the unix socket away; nil for TCP
	source  *certs.Source // nil without TLS
	timeout time.Duration
	logger  *slog.Logger
	closing chan struct{}
	close   func() error // once
}

// Open validates the configuration, loads the certificates and starts to listen.
func Open(ctx context.Context, cfg Config) (*Listener, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Listener{timeout: cfg.HandshakeTimeout, logger: cfg.Logger, closing: make(chan struct{})}
	l.close = sync.OnceValue(l.shut)
	if cfg.CertFile != "" {
		source, err := openCertificates(cfg)
		if err != nil {
			return nil, err
		}
		l.source = source
	}
	network, address, err := cfg.target()
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		l.net, l.remove, err = listenUnix(ctx, address)
		l.addr = &net.UnixAddr{Name: address, Net: "unix"}
	} else if l.net, err = listenTCP(ctx, address); err == nil {
		l.addr = l.net.Addr()
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", cfg.Address, err)
	}
	if network == "tcp" && cfg.ClientCAFile == "" {
		cfg.Logger.Warn("listening without client certificates: whoever reaches the address is served", "address", l.addr.String(), "tls", l.source != nil)
	}
	return l, nil
}

// listenTCP opens a TCP listener. TCP keepalive finds a client that is gone without a word after 15 s of silence and 5 lost probes, about a minute and a half;
// HTTP/2 PINGs to clients are two hours apart, as etcd's.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 5}}
	return lc.Listen(ctx, "tcp", address)
}

// openCertificates loads the server's certificate and the client CA.
func openCertificates(cfg Config) (*certs.Source, error) {
	return certs.Open(certs.Config{
		CertFile: cfg.CertFile,
		KeyFile:  cfg.KeyFile,
		CAFile:   cfg.ClientCAFile,
		Interval: cfg.ReloadInterval,
		Now:      cfg.Now,
		Logger:   cfg.Logger,
	}, func(m certs.Material) *tls.Config { return serverConfig(m, cfg.AllowedNames) })
}

// serverConfig builds the configuration of one set of files.
func serverConfig(m certs.Material, names []string) *tls.Config {
	config := &tls.Config{
		Certificates: []tls.Certificate{*m.Certificate},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{ProtocolHTTP2, ProtocolHTTP1},
		// A resumed session would be taken on the word of an earlier handshake, perhaps under another CA. Clients keep their connections for hours, so
		// that resumption saves nothing.
		SessionTicketsDisabled: true,
	}
	if m.Pool != nil {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = m.Pool
	}
	if len(names) > 0 {
		config.VerifyConnection = func(state tls.ConnectionState) error { return allow(state, names) }
	}
	return config
}

// allow refuses a client none of whose names is allowed.
func allow(state tls.ConnectionState, names []string) error {
	if len(state.VerifiedChains) == 0 {
		return errors.New("checking client certificate: it is not verified")
	}
	leaf := state.VerifiedChains[0][0]
	for _, name := range names {
		if bears(leaf, name) {
			return nil
		}
	}
	return fmt.Errorf("checking client certificate: no name of it (CN %q, DNS %q) is in allowedNames", leaf.Subject.CommonName, leaf.DNSNames)
}

// bears says whether a certificate has the name as its common name, a DNS name or a URI.
func bears(leaf *x509.Certificate, name string) bool {
	if leaf.Subject.CommonName == name {
		return true
	}
	for _, dns := range leaf.DNSNames {
		if strings.EqualFold(dns, name) {
			return true
		}
	}
	for _, uri := range leaf.URIs {
		if uri.String() == name {
			return true
		}
	}
	return false
}
