package upstream

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
)

// server is a TLS server that completes handshakes and tells what it saw.
type server struct {
	endpoint string
	seen     chan tls.ConnectionState // of each handshake that succeeded
}

// serve starts a server on 127.0.0.1 that is closed with the test.
func serve(t *testing.T, config *tls.Config) server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server{endpoint: "https://" + ln.Addr().String(), seen: make(chan tls.ConnectionState, 10)}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = ln.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			secured := tls.Server(conn, config)
			if err := secured.HandshakeContext(t.Context()); err == nil {
				s.seen <- secured.ConnectionState()
			}
			_ = secured.Close()
		}
	}()
	return s
}

func TestDialVerifies(t *testing.T) {
	ca, other := certstest.NewCA(t, "ca"), certstest.NewCA(t, "ca")
	caFile := ca.Write(t, t.TempDir())
	byName := ca.Issue(t, certstest.Request{Server: true, DNSNames: []string{"etcd.example"}})
	h2 := []string{"h2"}
	tests := map[string]struct {
		server *tls.Config
		tls    TLS
		want   string // a part of the error; empty for none
	}{
		"IP address":       {&tls.Config{Certificates: []tls.Certificate{ca.Server(t).TLS(t)}, NextProtos: h2}, TLS{}, ""},
		"other CA":         {&tls.Config{Certificates: []tls.Certificate{other.Server(t).TLS(t)}, NextProtos: h2}, TLS{}, "unknown authority"},
		"other name":       {&tls.Config{Certificates: []tls.Certificate{byName.TLS(t)}, NextProtos: h2}, TLS{}, "127.0.0.1"},
		"server name":      {&tls.Config{Certificates: []tls.Certificate{byName.TLS(t)}, NextProtos: h2}, TLS{ServerName: "etcd.example"}, ""},
		"wrong name":       {&tls.Config{Certificates: []tls.Certificate{byName.TLS(t)}, NextProtos: h2}, TLS{ServerName: "other.example"}, "other.example"},
		"no ALPN":          {&tls.Config{Certificates: []tls.Certificate{ca.Server(t).TLS(t)}}, TLS{}, `protocol ""`},
		"HTTP/1.1 by ALPN": {&tls.Config{Certificates: []tls.Certificate{ca.Server(t).TLS(t)}, NextProtos: []string{"http/1.1"}}, TLS{}, "no application protocol"},
		"TLS 1.1": {
			&tls.Config{Certificates: []tls.Certificate{ca.Server(t).TLS(t)}, NextProtos: h2, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			TLS{}, "version",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.server)
			test.tls.CAFile = caFile
			p := newPool(t, Config{Endpoints: []string{s.endpoint}, TLS: test.tls})
			c, err := p.Dial(t.Context())
			if test.want == "" {
				if err != nil {
					t.Fatalf("dialing: %v", err)
				}
				if _, ok := c.Conn.(*tls.Conn); !ok {
					t.Errorf("got a %T", c.Conn)
				}
				_ = c.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestCertificatesFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "first")
	cfg := Config{TLS: TLS{CAFile: ca.Write(t, dir)}}
	cfg.TLS.CertFile, cfg.TLS.KeyFile = ca.Issue(t, certstest.Request{DNSNames: []string{"first"}}).Write(t, dir, "client")
	s := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.Server(t).TLS(t)}, NextProtos: []string{"h2"}, ClientAuth: tls.RequestClientCert})
	cfg.Endpoints = []string{s.endpoint}
	p := newPool(t, cfg)
	if got := shown(t, p, s); got != "first" {
		t.Errorf("showed %q, want first", got)
	}

	ca.Issue(t, certstest.Request{DNSNames: []string{"second"}}).Write(t, dir, "client")
	if err := p.Reload(); err != nil {
		t.Fatalf("reloading: %v", err)
	}
	if got := shown(t, p, s); got != "second" {
		t.Errorf("showed %q, want second", got)
	}

	ca.Issue(t, certstest.Request{CommonName: "root"}).Write(t, dir, "client")
	if err := p.Reload(); err == nil {
		t.Error("Reload accepted a certificate with a CN")
	}
	if got := shown(t, p, s); got != "second" {
		t.Errorf("showed %q, want second", got)
	}

	ca.Issue(t, certstest.Request{}).Write(t, dir, "client")
	certstest.Replace(t, cfg.TLS.CAFile, certstest.NewCA(t, "second").PEM())
	if err := p.Reload(); err != nil {
		t.Fatalf("reloading: %v", err)
	}
	if _, err := p.Dial(t.Context()); err == nil {
		t.Error("a server of the old CA was trusted")
	}
	if expiry, ok := p.CertificateExpiry(); !ok || expiry.IsZero() {
		t.Errorf("expiry: got %s, %t", expiry, ok)
	}
}

// shown connects and returns the DNS name of the certificate that the server was shown.
func shown(t *testing.T, p *Pool, s server) string {
	t.Helper()
	_ = dial(t, p).Close()
	state := <-s.seen
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	return strings.Join(state.PeerCertificates[0].DNSNames, ",")
}

func TestClientCommonNameIsRefused(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "ca")
	cfg := Config{Endpoints: []string{"https://127.0.0.1:1"}}
	cfg.TLS.CertFile, cfg.TLS.KeyFile = ca.Issue(t, certstest.Request{CommonName: "root"}).Write(t, dir, "client")
	_, err := New(cfg)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{`"root"`, "sends no token", "allowClientCN", cfg.TLS.CertFile} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q in it", err, part)
		}
	}
	cfg.AllowClientCN = true
	newPool(t, cfg)
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	writePassword(t, empty, "\n")
	caFile := certstest.NewCA(t, "ca").Write(t, dir)
	plain := []string{"http://a:1"}
	for name, cfg := range map[string]Config{
		"no endpoint":           {},
		"TLS files without TLS": {Endpoints: plain, TLS: TLS{CAFile: caFile}},
		"missing CA":            {Endpoints: []string{"https://a:1"}, TLS: TLS{CAFile: caFile + ".missing"}},
		"key alone":             {Endpoints: []string{"https://a:1"}, TLS: TLS{KeyFile: caFile}},
		"user alone":            {Endpoints: plain, Auth: Auth{Username: "u"}},
		"password alone":        {Endpoints: plain, Auth: Auth{PasswordFile: caFile}},
		"missing password":      {Endpoints: plain, Auth: Auth{Username: "u", PasswordFile: caFile + ".missing"}},
		"empty password":        {Endpoints: plain, Auth: Auth{Username: "u", PasswordFile: empty}},
		"negative":              {Endpoints: plain, DialTimeout: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// etcd with client certificates, over TCP and over a unix socket: the probe, a connection, and another gRPC client with the pool's credentials.
func TestRealMemberWithTLS(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "ca")
	caFile := ca.Write(t, dir)
	certFile, keyFile := ca.Issue(t, certstest.Request{
		Server: true, DNSNames: []string{"m0-client"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
	}).Write(t, dir, "server")
	clientCert, clientKey := ca.Issue(t, certstest.Request{}).Write(t, dir, "client")
	for name, listen := range map[string]string{"TCP": "https://127.0.0.1:0", "unix": "unixs://m0-client:0"} {
		t.Run(name, func(t *testing.T) {
			m := cluster(t, 1, func(_ int, cfg *embed.Config) {
				cfg.ListenClientUrls = mustURLs(t, listen)
				cfg.AdvertiseClientUrls = cfg.ListenClientUrls
				cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = certFile, keyFile
				cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = caFile, true
			})[0]
			endpoint := m.endpoint
			if name == "unix" {
				path, err := filepath.Abs("m0-client:0")
				if err != nil {
					t.Fatal(err)
				}
				endpoint = "unixs://" + path
			}
			p := newPool(t, Config{Endpoints: []string{endpoint}, TLS: TLS{CAFile: caFile, CertFile: clientCert, KeyFile: clientKey}})
			until(t, p, Healthy)
			client, err := p.newClient(p.endpoints[0])
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := pb.NewKVClient(client).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
				t.Errorf("calling with the pool's credentials: %v", err)
			}
			if got := dial(t, p).Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Errorf("negotiated %q", got)
			}

			stranger := newPool(t, Config{Endpoints: []string{endpoint}, TLS: TLS{CAFile: caFile}})
			stranger.Probe(t.Context())
			if got := healths(stranger)[0]; got != Dead { // the reason is not always told before the connection is closed
				t.Errorf("without a certificate: %s", got)
			}
		})
	}
}

// What a gRPC client other than the pool's gets by Credentials.
func TestCredentialsVerify(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	s := serve(t, &tls.Config{Certificates: []tls.Certificate{certstest.NewCA(t, "other").Server(t).TLS(t)}, NextProtos: []string{"h2"}})
	p := newPool(t, Config{Endpoints: []string{s.endpoint}, TLS: TLS{CAFile: ca.Write(t, t.TempDir())}})
	client, err := grpc.NewClient("passthrough:///"+p.endpoints[0].target, grpc.WithTransportCredentials(p.Credentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = pb.NewKVClient(client).Range(t.Context(), &pb.RangeRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("got %v, want a refused certificate", err)
	}
}
