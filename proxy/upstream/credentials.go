package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/etcdseal/etcdseal/proxy/certs"
)

// alpn is the only protocol spoken to etcd.
const alpn = "h2"

// openCertificates loads the client certificate and the CA for connections to etcd.
func openCertificates(cfg Config) (*certs.Source, error) {
	check := refuseCN
	if cfg.AllowClientCN {
		check = nil
	}
	return certs.Open(certs.Config{
		CertFile: cfg.TLS.CertFile,
		KeyFile:  cfg.TLS.KeyFile,
		CAFile:   cfg.TLS.CAFile,
		Check:    check,
		Interval: cfg.TLS.ReloadInterval,
		Now:      cfg.Now,
		Logger:   cfg.Logger,
	}, func(m certs.Material) *tls.Config {
		config := &tls.Config{RootCAs: m.Pool, ServerName: cfg.TLS.ServerName, MinVersion: tls.VersionTLS12, NextProtos: []string{alpn}}
		if m.Certificate != nil {
			config.Certificates = []tls.Certificate{*m.Certificate}
		}
		return config
	})
}

// handshake secures a connection to the named host and verifies that HTTP/2 was negotiated. On an error the connection is closed.
func (p *Pool) handshake(ctx context.Context, host string, raw net.Conn) (*tls.Conn, error) {
	config := p.source.Config().Clone()
	if config.ServerName == "" {
		config.ServerName = host
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error says more
		return nil, fmt.Errorf("doing TLS handshake with etcd as %s: %w", config.ServerName, err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != alpn {
		_ = raw.Close()
		return nil, fmt.Errorf("doing TLS handshake with etcd as %s: it chose the protocol %q, not %q", config.ServerName, got, alpn)
	}
	return conn, nil
}

// Credentials returns what any gRPC client of the same cluster should use, such as the keyring's etcd client (as grpc.WithTransportCredentials among
// clientv3.Config.DialOptions, with clientv3.Config.TLS nil). Each of its handshakes uses the files as they are then. Without TLS it returns insecure
// credentials.
//
// It is not a *tls.Config, because crypto/tls offers no way to verify an endpoint that is an IP address against a CA that changes: RootCAs is fixed, and
// VerifyConnection is not told the IP address.
func (p *Pool) Credentials() credentials.TransportCredentials {
	if p.source == nil {
		return insecure.NewCredentials()
	}
	return transport{p}
}

// transport is the credentials.TransportCredentials of a pool with TLS.
type transport struct {
	pool *Pool
}

// ClientHandshake implements credentials.TransportCredentials.
func (t transport) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority // no port
	}
	conn, err := t.pool.handshake(ctx, host, raw)
	if err != nil {
		return nil, nil, err
	}
	info := credentials.TLSInfo{
		State:          conn.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
	return conn, info, nil
}

// ServerHandshake implements credentials.TransportCredentials. It always fails: these credentials are for clients.
func (transport) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("doing TLS handshake: these credentials are for clients only")
}

// Info implements credentials.TransportCredentials.
func (transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials. The copy follows the same files.
func (t transport) Clone() credentials.TransportCredentials { return t }

// OverrideServerName implements credentials.TransportCredentials. It always fails; Config.TLS.ServerName is the way.
func (transport) OverrideServerName(string) error {
	return errors.New("overriding server name: set it in the configuration")
}
