package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/etcdseal/etcdseal/proxy/certs"
)

// visit is what an endpoint showed to a request of its own, beside gRPC.
type visit struct {
	chain   []*x509.Certificate // nil without TLS, or if it could not be verified
	reading                     // of etcd's clock; its date is zero if it did not say
}

// visit asks an endpoint for /version over HTTP. What fails is found by the probes, too,
// with better words.
func (d *doctor) visit(ctx context.Context, endpoint string) (v visit) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	secure := strings.HasPrefix(endpoint, "https://")
	settings, err := d.clientTLS()
	if secure && err != nil {
		return v
	}
	settings.VerifyConnection = func(state tls.ConnectionState) error {
		v.chain = state.PeerCertificates
		return nil
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, endpoint, address) },
		TLSClientConfig:   settings,
		ForceAttemptHTTP2: true, // which is all that etcd speaks over TLS
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	target := endpoint
	if _, socket := strings.CutPrefix(endpoint, "unix://"); socket {
		target = "http://localhost"
	}
	u, err := url.Parse(target)
	if err != nil {
		return v
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("/version").String(), nil)
	if err != nil {
		return v
	}
	v.before = d.Now()
	answer, err := transport.RoundTrip(request)
	v.after = d.Now()
	if err != nil {
		return v
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16)) // nothing of it is used
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		v.date = date
	}
	return v
}

// clientTLS is how etcdseal shows itself to etcd, and whom it believes.
func (d *doctor) clientTLS() (*tls.Config, error) {
	t := d.Config.Config.Etcd.TLS
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		authorities, err := certs.ReadAuthorities(t.CAFile)
		if err != nil {
			return settings, err
		}
		settings.RootCAs = x509.NewCertPool()
		for _, cert := range authorities {
			settings.RootCAs.AddCert(cert)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return settings, err
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

// dial connects to an endpoint, whatever address is asked for if it is a socket.
func dial(ctx context.Context, endpoint, address string) (net.Conn, error) {
	network := "tcp"
	if path, socket := strings.CutPrefix(endpoint, "unix://"); socket {
		network, address = "unix", path
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// clock notes how an endpoint's clock compares.
func (v *visit) clock(n *notes, endpoint string) {
	subject := "clock of " + endpoint
	if v.date.IsZero() {
		n.add(Etcd, Unknown, subject, "see that both machines use NTP", "etcd says no time there: it serves gRPC alone, or did not answer over HTTP")
		return
	}
	v.compare(n, Etcd, subject, "Date of its /version")
}
