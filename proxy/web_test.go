package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
	"github.com/etcdseal/etcdseal/proxy/listen"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// putJSON is the body of a put under the rule.
func putJSON(key, value string) string {
	return fmt.Sprintf(`{"key":%q,"value":%q}`, b64(sealedPrefix+key), b64(value))
}

// raw sends bytes on a connection of its own and returns what comes before its end.
func (l *lab) raw(t *testing.T, bytes string) string {
	t.Helper()
	conn, err := net.Dial("tcp", l.address)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(boundedFor)))
	_, err = io.WriteString(conn, bytes)
	must(t, err)
	answer, err := io.ReadAll(conn)
	must(t, err)
	return string(answer)
}

// request is an HTTP/1.1 request after which the connection ends.
func request(line, body string, header ...string) string {
	lines := append([]string{line + " HTTP/1.1", "Host: etcd", "Connection: close", fmt.Sprintf("Content-Length: %d", len(body))}, header...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// TestNoWayAroundOverHTTP sends writes in odd forms. Whatever the answer, nothing under
// the rule is stored as plaintext.
func TestNoWayAroundOverHTTP(t *testing.T) {
	l := newLab(t, setup{})
	put := putJSON("a", "plaintext")
	grpc := "\x00\x00\x00\x00\x1e\n\x13" + sealedPrefix + "g\x12\tplaintext"
	for name, c := range map[string]struct {
		bytes string
		want  string // how the answer begins; empty if there is none
	}{
		"the JSON API":           {request("POST /v3/kv/put", put), "HTTP/1.1 200 OK"},
		"an absolute target":     {request("POST http://127.0.0.1:1/v3/kv/put", put), "HTTP/1.1 200 OK"},
		"an https target":        {request("POST https://other/v3/kv/put", put), "HTTP/1.1 200 OK"},
		"an escaped path":        {request("POST /v3/kv/%70ut", put), "HTTP/1.1 200 OK"},
		"the old name":           {request("POST /v3beta/kv/put", put), "HTTP/1.1 200 OK"},
		"two slashes":            {request("POST //v3/kv/put", put), "HTTP/1.1 307"},
		"capitals":               {request("POST /v3/KV/put", put), "HTTP/1.1 404"},
		"h2c upgrade":            {request("POST /v3/kv/put", put, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), "HTTP/1.1 200 OK"},
		"h2c upgrade, bare":      {"GET /version HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "HTTP/1.1 200 OK"},
		"HTTP/1.0":               {"POST /v3/kv/put HTTP/1.0\r\nContent-Length: " + fmt.Sprint(len(put)) + "\r\n\r\n" + put, "HTTP/1.0 200 OK"},
		"CONNECT":                {"CONNECT 127.0.0.1:2379 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
		"gRPC over HTTP/1.1":     {request("POST /etcdserverpb.KV/Put", grpc, "Content-Type: application/grpc"), "HTTP/1.1 404"},
		"gRPC-Web":               {request("POST /etcdserverpb.KV/Put", grpc, "Content-Type: application/grpc-web"), "HTTP/1.1 404"},
		"Connect":                {request("POST /etcdserverpb.KV/Put", put, "Content-Type: application/json", "Connect-Protocol-Version: 1"), "HTTP/1.1 404"},
		"two lengths":            {request("POST /v3/kv/put", put, "Content-Length: 3"), "HTTP/1.1 400"},
		"a length and chunks":    {request("POST /v3/kv/put", "2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "HTTP/1.1 400"},
		"half a preface":         {"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", ""},
		"HTTP/0.9":               {"GET /version\r\n\r\n", ""},
		"no HTTP":                {"\x16\x03\x01\x00\x05hello\r\n\r\n", ""},
		"a header without end":   {"GET /version HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		"what etcd says":         {request("GET /version", ""), "HTTP/1.1 200 OK"},
		"for debugging":          {request("GET /debug/vars", ""), "HTTP/1.1 404"},
		"a page of another site": {request("POST /v3/kv/put", put, "Origin: http://evil.example"), "HTTP/1.1 403"},
		"a page of its own":      {request("POST /v3/kv/put", put, "Origin: https://etcd"), "HTTP/1.1 200 OK"},
		"a name without TLS":     {request("POST /v3/kv/put", put, "Origin: http://etcd"), "HTTP/1.1 403"},
		"the reserved prefix":    {request("POST /v3/kv/put", `{"key":"`+b64("/etcdseal/x")+`"}`), "HTTP/1.1 403"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := l.raw(t, c.bytes)
			if !strings.HasPrefix(answer, c.want) || c.want == "" && answer != "" {
				t.Errorf("got %.300q, want %s", answer, c.want)
			}
		})
	}
	for _, key := range []string{"a", "g"} {
		if got := l.stored(t, sealedPrefix+key); got != nil && !envelope.Is(got) {
			t.Errorf("etcd holds %q under %s", got, key)
		}
	}
	if l.stored(t, sealedPrefix+"a") == nil {
		t.Error("nothing was written at all")
	}
	families, err := l.metrics.Gather()
	must(t, err)
	kinds := 0
	for _, f := range families {
		if f.GetName() == "etcdseal_http_requests_total" {
			kinds = len(f.Metric)
		}
	}
	if kinds < 5 {
		t.Errorf("%d kinds of answers are counted", kinds)
	}
}

// transport speaks one version of HTTP to the proxy.
func (l *lab) transport(version string) *http.Transport {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, l.address)
	}, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(version == "HTTP/2.0")
	transport.Protocols.SetHTTP1(version == "HTTP/1.1")
	return transport
}

// TestHTTP2ContentTypes sends requests to gRPC's paths that are not gRPC.
func TestHTTP2ContentTypes(t *testing.T) {
	l := newLab(t, setup{})
	transport := l.transport("HTTP/2.0")
	defer transport.CloseIdleConnections()
	for _, c := range []struct {
		method, contentType string
		want                int
	}{
		{"POST", "application/grpc-web", 415}, {"POST", "application/grpc-web+proto", 415}, {"POST", "application/grpcx", 415},
		{"GET", "application/grpc", 415}, {"POST", "application/json", 404}, {"POST", "application/proto", 404},
		{"POST", "Application/gRPC", 404}, {"POST", " application/grpc", 404}, {"POST", "", 404}, {"GET", "", 404},
	} {
		r, err := http.NewRequestWithContext(bounded(t), c.method, "http://etcd/etcdserverpb.KV/Put", strings.NewReader("\x00\x00\x00\x00\x00"))
		must(t, err)
		r.Header["Content-Type"] = []string{c.contentType}
		answer, err := transport.RoundTrip(r)
		must(t, err)
		body, err := io.ReadAll(answer.Body)
		must(t, err)
		must(t, answer.Body.Close())
		if answer.StatusCode != c.want {
			t.Errorf("%s %q: %d %s, want %d", c.method, c.contentType, answer.StatusCode, body, c.want)
		}
	}
}

// TestHTTPBehindCertificates asks over TLS with every protocol and certificate.
func TestHTTPBehindCertificates(t *testing.T) {
	ca, dir := certstest.NewCA(t, "ca"), t.TempDir()
	cfg := listen.Config{Address: "127.0.0.1:0", ClientCAFile: ca.Write(t, dir), AllowedNames: []string{"friend"}}
	cfg.CertFile, cfg.KeyFile = ca.Server(t).Write(t, dir, "server")
	l := newLabWithoutClient(t, setup{listen: cfg})
	friend, stranger := ca.Issue(t, certstest.Request{CommonName: "friend"}), ca.Issue(t, certstest.Request{CommonName: "stranger"})
	other := certstest.NewCA(t, "other").Issue(t, certstest.Request{CommonName: "friend"})
	for name, c := range map[string]struct {
		protos  []string
		pairs   []certstest.Pair
		version string // of HTTP; empty if it is refused
	}{
		"h2":                      {[]string{"h2"}, []certstest.Pair{friend}, "HTTP/2.0"},
		"http/1.1":                {[]string{"http/1.1"}, []certstest.Pair{friend}, "HTTP/1.1"},
		"both":                    {[]string{"h2", "http/1.1"}, []certstest.Pair{friend}, "HTTP/2.0"},
		"no ALPN":                 {nil, []certstest.Pair{friend}, "HTTP/1.1"},
		"a name not allowed, h2":  {[]string{"h2"}, []certstest.Pair{stranger}, ""},
		"a name not allowed":      {[]string{"http/1.1"}, []certstest.Pair{stranger}, ""},
		"another CA":              {[]string{"http/1.1"}, []certstest.Pair{other}, ""},
		"no certificate":          {[]string{"http/1.1"}, nil, ""},
		"no certificate, no ALPN": {nil, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: c.protos}
			for _, p := range c.pairs {
				config.Certificates = append(config.Certificates, p.TLS(t))
			}
			for _, r := range []*http.Request{
				httptest.NewRequestWithContext(bounded(t), "POST", "https://localhost/v3/kv/put", strings.NewReader(putJSON("t", "x"))),
				httptest.NewRequestWithContext(bounded(t), "GET", "https://localhost/version", nil),
			} {
				answer, err := overTLS(t, l.address, config, r)
				switch {
				case c.version == "" && err == nil:
					t.Errorf("%s: %s %s", r.URL, answer.Proto, answer.Status)
				case c.version == "":
				case err != nil || answer.Proto != c.version || answer.StatusCode != 200:
					t.Errorf("%s: %v, %v", r.URL, answer, err)
				}
			}
		})
	}
	if got := l.stored(t, sealedPrefix+"t"); !envelope.Is(got) {
		t.Errorf("etcd holds %q", got)
	}
}

// overTLS makes a request with the protocol that was negotiated.
func overTLS(t *testing.T, address string, config *tls.Config, r *http.Request) (*http.Response, error) {
	t.Helper()
	r.RequestURI = ""
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(boundedFor)))
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		transport := &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			Protocols:      new(http.Protocols),
		}
		transport.Protocols.SetHTTP2(true)
		answer, err := transport.RoundTrip(r)
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
		}
		return answer, err
	}
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), r)
}

// TestShutdownOfHTTP ends idle connections and watches at once, lets a call in flight
// finish, and leaves nothing behind: it never comes to the end of its grace.
func TestShutdownOfHTTP(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			l := newLab(t, setup{grace: 2 * boundedFor})
			transport := l.transport(version)
			transport.ExpectContinueTimeout = boundedFor
			defer transport.CloseIdleConnections()
			do := func(ctx context.Context, path string, body io.Reader, header ...string) (*http.Response, error) {
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://etcd"+path, body)
				must(t, err)
				for i := 0; i < len(header); i += 2 {
					r.Header.Set(header[i], header[i+1])
				}
				return transport.RoundTrip(r)
			}
			ctx := bounded(t)
			watch, err := do(ctx, "/v3/watch", strings.NewReader(`{"create_request":{"key":"YQ=="}}`))
			must(t, err)
			defer watch.Body.Close()
			if watch.Proto != version {
				t.Fatalf("it speaks %s", watch.Proto)
			}
			line := bufio.NewReader(watch.Body)
			_, err = line.ReadString('\n')
			must(t, err)
			body, send := io.Pipe()
			// The 100 shows that the request was taken.
			taken, ended := make(chan struct{}), make(chan error, 1)
			expecting := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { close(taken) }})
			go func() {
				answer, err := do(expecting, "/v3/kv/put", body, "Expect", "100-continue")
				if err == nil {
					defer answer.Body.Close()
					_, err = io.Copy(io.Discard, answer.Body)
				}
				if err == nil && answer.StatusCode != 200 {
					err = errors.New(answer.Status)
				}
				ended <- err
			}()
			select {
			case <-taken:
			case err := <-ended:
				t.Fatalf("the call ended before its body was asked for: %v", err)
			}
			put := putJSON("late", "x")
			_, err = io.WriteString(send, put[:10])
			must(t, err)
			down := make(chan struct{})
			go func() { defer close(down); l.shutdown() }()
			if version == "HTTP/1.1" { // a pair ends when its last call does
				_, err := io.Copy(io.Discard, line)
				t.Logf("the watch ended: %v", err)
			}
			_, err = io.WriteString(send, put[10:])
			must(t, err)
			must(t, send.Close())
			if err := <-ended; err != nil {
				t.Errorf("the call in flight: %v", err)
			}
			select {
			case <-down:
			case <-ctx.Done():
				t.Error("it waits, for nothing that is there")
			}
		})
	}
}
