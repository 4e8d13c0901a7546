package listen

import (
	"crypto/tls"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/proxy/certs"
	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
)

// tlsConfig returns the configuration of a TLS listener on a free port, with files signed by ca.
func tlsConfig(t *testing.T, ca *certstest.CA) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Address: "127.0.0.1:0", ClientCAFile: ca.Write(t, dir)}
	cfg.CertFile, cfg.KeyFile = ca.Server(t).Write(t, dir, "server")
	return cfg
}

// open opens a listener that is closed with the test.
func open(t *testing.T, cfg Config) *Listener {
	t.Helper()
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// outcome is how a handshake ended on the server's side.
type outcome struct {
	proto   string
	resumed bool
	err     error
}

// connect makes a client handshake with the listener and returns how the server saw it end.
func connect(t *testing.T, l *Listener, client *tls.Config) outcome {
	t.Helper()
	done := make(chan outcome, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- outcome{err: err}
			return
		}
		secured, proto, err := l.Handshake(t.Context(), conn)
		if err != nil {
			done <- outcome{err: err}
			return
		}
		defer secured.Close()
		_, err = secured.Write([]byte("x")) // the client reads it, and any session ticket before it
		done <- outcome{proto: proto, resumed: secured.(*tls.Conn).ConnectionState().DidResume, err: err}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, _ = conn.Read(make([]byte, 1)) // fails if the server refused the certificate; the server's view counts
		_ = conn.Close()
	}
	return <-done
}

// clientConfig returns a client's configuration that trusts ca.
func clientConfig(t *testing.T, ca *certstest.CA, pairs ...certstest.Pair) *tls.Config {
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"h2"}}
	for _, pair := range pairs {
		config.Certificates = append(config.Certificates, pair.TLS(t))
	}
	return config
}

func TestHandshake(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	l := open(t, tlsConfig(t, ca))
	good := ca.Issue(t, certstest.Request{CommonName: "kube-apiserver"})
	tests := map[string]struct {
		pairs  []certstest.Pair
		change func(*tls.Config)
		proto  string
		fails  bool
	}{
		"h2":           {pairs: []certstest.Pair{good}, proto: ProtocolHTTP2},
		"http/1.1":     {pairs: []certstest.Pair{good}, change: func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, proto: ProtocolHTTP1},
		"prefers h2":   {pairs: []certstest.Pair{good}, change: func(c *tls.Config) { c.NextProtos = []string{"http/1.1", "h2"} }, proto: ProtocolHTTP2},
		"no ALPN":      {pairs: []certstest.Pair{good}, change: func(c *tls.Config) { c.NextProtos = nil }},
		"TLS 1.2":      {pairs: []certstest.Pair{good}, change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, proto: ProtocolHTTP2},
		"TLS 1.1":      {pairs: []certstest.Pair{good}, change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }, fails: true},
		"unknown ALPN": {pairs: []certstest.Pair{good}, change: func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }, fails: true},
		"no certificate": {
			fails: true,
		},
		"other CA": {
			pairs: []certstest.Pair{certstest.NewCA(t, "ca").Issue(t, certstest.Request{CommonName: "kube-apiserver"})},
			fails: true,
		},
		"expired": {
			pairs: []certstest.Pair{ca.Issue(t, certstest.Request{NotAfter: time.Now().Add(-time.Minute)})},
			fails: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client := clientConfig(t, ca, test.pairs...)
			if test.change != nil {
				test.change(client)
			}
			// A client picks no certificate of a CA that the server does not name; this one insists.
			if len(test.pairs) > 0 {
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client.Certificates[0], nil }
			}
			got := connect(t, l, client)
			if (got.err != nil) != test.fails {
				t.Fatalf("error: got %v, want one: %t", got.err, test.fails)
			}
			if got.proto != test.proto {
				t.Errorf("protocol: got %q, want %q", got.proto, test.proto)
			}
		})
	}
}

func TestAllowedNames(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	spiffe := &url.URL{Scheme: "spiffe", Host: "cluster", Path: "/kube-apiserver"}
	tests := map[string]struct {
		allowed []string
		client  certstest.Request
		ok      bool
	}{
		"CN":               {[]string{"a", "kube-apiserver"}, certstest.Request{CommonName: "kube-apiserver"}, true},
		"CN, other case":   {[]string{"kube-apiserver"}, certstest.Request{CommonName: "Kube-apiserver"}, false},
		"DNS":              {[]string{"api.example"}, certstest.Request{CommonName: "x", DNSNames: []string{"b.example", "API.example"}}, true},
		"no wildcard":      {[]string{"api.example"}, certstest.Request{DNSNames: []string{"*.example"}}, false},
		"allowed wildcard": {[]string{"*.example"}, certstest.Request{DNSNames: []string{"api.example"}}, false},
		"URI":              {[]string{spiffe.String()}, certstest.Request{URIs: []*url.URL{spiffe}}, true},
		"none":             {[]string{"kube-apiserver"}, certstest.Request{}, false},
		"other":            {[]string{"kube-apiserver"}, certstest.Request{CommonName: "etcdctl", DNSNames: []string{"etcdctl"}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := tlsConfig(t, ca)
			cfg.AllowedNames = test.allowed
			l := open(t, cfg)
			got := connect(t, l, clientConfig(t, ca, ca.Issue(t, test.client)))
			if (got.err == nil) != test.ok {
				t.Errorf("got %v, want admitted: %t", got.err, test.ok)
			}
		})
	}
}

// The names are checked at every handshake: no session survives that was admitted under other rules.
func TestSessionsAreNotResumed(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	l := open(t, tlsConfig(t, ca))
	client := clientConfig(t, ca, ca.Issue(t, certstest.Request{}))
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for i := range 2 {
		if got := connect(t, l, client); got.err != nil || got.resumed {
			t.Errorf("connection %d: error %v, resumed %t", i, got.err, got.resumed)
		}
	}
}

func TestInsecureTLSAsksForNoCertificate(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	cfg := tlsConfig(t, ca)
	cfg.ClientCAFile, cfg.Insecure = "", true
	if got := connect(t, open(t, cfg), clientConfig(t, ca)); got.err != nil {
		t.Errorf("connecting without a certificate: %v", got.err)
	}
}

func TestInsecurePlainTCP(t *testing.T) {
	l := open(t, Config{Address: "127.0.0.1:0", Insecure: true})
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, proto, err := l.Handshake(t.Context(), conn)
	if err != nil || got != conn || proto != "" {
		t.Errorf("got %v, %q, %v; want the connection itself", got, proto, err)
	}
	if err := l.Reload(); err != nil {
		t.Errorf("reloading nothing: %v", err)
	}
	if _, ok := l.CertificateExpiry(); ok {
		t.Error("a plain listener has a certificate")
	}
}

func TestReload(t *testing.T) {
	oldCA, newCA := certstest.NewCA(t, "old"), certstest.NewCA(t, "new")
	var now atomic.Int64
	cfg := tlsConfig(t, oldCA)
	cfg.Now = func() time.Time { return time.Unix(0, now.Load()) }
	l := open(t, cfg)
	before := clientConfig(t, oldCA, oldCA.Issue(t, certstest.Request{}))
	after := clientConfig(t, newCA, newCA.Issue(t, certstest.Request{}))
	if got := connect(t, l, before); got.err != nil {
		t.Fatalf("before the change: %v", got.err)
	}

	dir := filepath.Dir(cfg.CertFile)
	newCA.Server(t).Write(t, dir, "server")
	certstest.Replace(t, cfg.ClientCAFile, newCA.PEM())
	now.Add(int64(certs.DefaultInterval))
	if got := connect(t, l, after); got.err != nil {
		t.Errorf("new client after the change: %v", got.err)
	}
	if got := connect(t, l, before); got.err == nil {
		t.Error("a client of the old CA was admitted after the change")
	}

	certstest.Replace(t, cfg.KeyFile, []byte("nonsense"))
	if err := l.Reload(); err == nil {
		t.Error("Reload accepted a broken key")
	}
	if got := connect(t, l, after); got.err != nil {
		t.Errorf("after a failed reload: %v", got.err)
	}
	want := newCA.Server(t).TLS(t).Leaf.NotAfter
	if got, ok := l.CertificateExpiry(); !ok || got.Sub(want).Abs() > time.Minute {
		t.Errorf("expiry: got %s %t, want about %s", got, ok, want)
	}
}

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		cfg  Config
		want []string // a part of each problem; none if it is valid
	}{
		"TLS":      {cfg: Config{Address: ":0", CertFile: "c", KeyFile: "k", ClientCAFile: "ca", AllowedNames: []string{"a"}}},
		"insecure": {cfg: Config{Address: "[::1]:2379", Insecure: true}},
		"unix":     {cfg: Config{Address: "unix:///run/x.sock"}},
		"unix with TLS": {
			cfg: Config{Address: "unix:///run/x.sock", CertFile: "c", KeyFile: "k", ClientCAFile: "ca"},
		},
		"nothing": {want: []string{"neither host:port nor unix", "needs certFile"}},
		"relative socket": {
			cfg: Config{Address: "unix://x.sock"}, want: []string{"absolute path"},
		},
		"TCP without client CA": {
			cfg: Config{Address: ":1", CertFile: "c", KeyFile: "k"}, want: []string{"set insecure"},
		},
		"key alone": {
			cfg: Config{Address: ":1", Insecure: true, KeyFile: "k"}, want: []string{"needed together"},
		},
		"client CA alone, insecure": {
			cfg: Config{Address: ":1", Insecure: true, ClientCAFile: "c"}, want: []string{"needs certFile and keyFile", "contradicts insecure"},
		},
		"names without CA": {
			cfg: Config{Address: ":1", Insecure: true, AllowedNames: []string{"a", ""}}, want: []string{"needs clientCAFile", "allowedNames[1] is empty"},
		},
		"negative timeout": {
			cfg: Config{Address: ":1", Insecure: true, HandshakeTimeout: -1}, want: []string{"negative"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := test.cfg.Validate()
			var lines []string
			if err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if len(lines) != len(test.want) {
				t.Fatalf("got %q, want %d problems", lines, len(test.want))
			}
			for i, want := range test.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("problem %d: got %q, want %q in it", i, lines[i], want)
				}
			}
		})
	}
}

func TestOpenChecksFilesAndAddress(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	missing := tlsConfig(t, ca)
	missing.CertFile += ".missing"
	taken := Config{Address: open(t, Config{Address: "127.0.0.1:0", Insecure: true}).Addr().String(), Insecure: true}
	for name, cfg := range map[string]Config{"missing file": missing, "taken address": taken, "invalid": {}} {
		if _, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}
