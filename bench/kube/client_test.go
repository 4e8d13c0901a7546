package kube

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serve is a client of a server that answers with the handler.
func serve(t *testing.T, handler http.HandlerFunc) *client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	c := newClient(server.Listener.Addr().String(), server.Client().Transport.(*http.Transport).TLSClientConfig, 2)
	t.Cleanup(c.close)
	return c
}

func TestClientSendsWhatKubernetesWants(t *testing.T) {
	type seen struct{ Method, URI, Body, Token, Accept, Type, Encoding, Proto string }
	got := make(chan seen, 1)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- seen{r.Method, r.URL.RequestURI(), string(body), r.Header.Get("Authorization"), r.Header.Get("Accept"), r.Header.Get("Content-Type"), r.Header.Get("Accept-Encoding"), r.Proto}
		io.WriteString(w, "answer")
	})
	answer, err := c.read(t.Context(), call{method: "PUT", path: "/p/q", query: "a=b", body: []byte("body")})
	if err != nil || string(answer) != "answer" {
		t.Errorf("answer is %q, %v", answer, err)
	}
	want := seen{"PUT", "/p/q?a=b", "body", "Bearer " + token, protobufType, protobufType, "", "HTTP/1.1"}
	if diff := cmp.Diff(want, <-got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestClientKeepsConnections(t *testing.T) {
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 100_000)) }))
	server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { connections.Add(1); return ctx }
	server.StartTLS()
	defer server.Close()
	c := newClient(server.Listener.Addr().String(), server.Client().Transport.(*http.Transport).TLSClientConfig, 2)
	defer c.close()
	done, err := saturate(t.Context(), func(ctx context.Context, _ int) error {
		return c.do(ctx, call{method: "GET", path: "/", minAnswer: 100_000})
	}, 2, 0, 20)
	if err != nil || done.calls != 20 {
		t.Errorf("%d calls, %v, want 20", done.calls, err)
	}
	if n := connections.Load(); n > 2 {
		t.Errorf("%d connections were made, want at most 2", n)
	}
}

func TestClientFails(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			io.WriteString(w, "short")
			return
		}
		http.Error(w, "the secret", http.StatusConflict)
	})
	err := c.do(t.Context(), call{method: "GET", path: "/refused"})
	if err == nil || strings.Contains(err.Error(), "the secret") || !strings.Contains(err.Error(), "409") {
		t.Errorf("error is %v, want the status without the answer's text", err)
	}
	if err := c.do(t.Context(), call{method: "GET", path: "/short", minAnswer: 6}); err == nil {
		t.Error("an answer that is too short was accepted")
	}
	stranger := newClient(c.host, &tls.Config{MinVersion: tls.VersionTLS12}, 1)
	defer stranger.close()
	if err := stranger.do(t.Context(), call{method: "GET", path: "/short"}); err == nil {
		t.Error("a certificate of an unknown authority was accepted")
	}
}
