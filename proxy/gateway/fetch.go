package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// etcdPaths are what etcd says of itself (etcdserver/api/etcdhttp), /debug/vars
// excepted.
var etcdPaths = []string{
	"/version", "/health", "/metrics",
	"/livez", "/livez/serializable_read",
	"/readyz", "/readyz/data_corruption", "/readyz/serializable_read", "/readyz/linearizable_read", "/readyz/non_learner",
}

// fetchTime bounds one request to etcd, its whole answer included. etcd's own health
// check takes up to 7 s.
const fetchTime = 30 * time.Second

// errNoHTTP says that etcd serves nothing but gRPC where the proxy connects.
var errNoHTTP = errors.New("etcd serves no HTTP on its client port")

// ofConnection are fields that belong to one connection (RFC 9110, 7.6.1).
var ofConnection = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Te", "Trailer"}

// askEtcd answers with what etcd answers to the same path.
func (h *Handler) askEtcd(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && (r.Method != http.MethodHead || r.URL.Path != "/metrics") {
		w.Header().Set("Allow", http.MethodGet) // word for word as etcd
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), fetchTime)
	defer cancel()
	err := h.fetch(ctx, w, r)
	if errors.Is(err, errNoHTTP) {
		h.compose(ctx, w, r)
		return
	}
	if err != nil {
		h.cfg.Logger.Debug("asking etcd over HTTP failed", "path", r.URL.Path, "error", err.Error())
		unavailable(w, r, err)
	}
}

// unavailable says in the form of each path that etcd cannot be asked.
func unavailable(w http.ResponseWriter, r *http.Request, err error) {
	text := "etcdseal: asking etcd: " + err.Error()
	if r.URL.Path == "/health" {
		answerHealth(w, text)
		return
	}
	http.Error(w, text, http.StatusServiceUnavailable)
}

// fetch copies etcd's answer. With an error nothing was answered yet.
func (h *Handler) fetch(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	conn, host, done, err := h.cfg.Dial(ctx)
	if err != nil {
		return err
	}
	defer done()
	scheme := "http"
	if h.cfg.TLS {
		scheme = "https"
	}
	target := url.URL{Scheme: scheme, Host: host, Path: r.URL.Path, RawQuery: r.URL.Query().Encode()}
	request, err := http.NewRequestWithContext(ctx, r.Method, target.String(), nil)
	if err != nil {
		return fmt.Errorf("making request: %w", err)
	}
	for _, name := range []string{"Accept", "Accept-Encoding"} {
		if values := r.Header.Values(name); len(values) > 0 {
			request.Header[name] = values
		}
	}
	answer, err := h.roundTrip(conn, request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for name, values := range answer.Header {
		if !slices.Contains(ofConnection, name) {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(answer.StatusCode)
	if _, err := io.Copy(w, answer.Body); err != nil {
		panic(http.ErrAbortHandler) // else a part would look like the whole
	}
	return nil
}

// roundTrip makes a request on a connection of its own: etcd takes HTTP/2 on TLS
// connections, and nothing but HTTP/1.1 on others.
func (h *Handler) roundTrip(conn net.Conn, request *http.Request) (*http.Response, error) {
	dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	transport := &http.Transport{
		DialContext: dial, DialTLSContext: dial, Protocols: new(http.Protocols),
		DisableKeepAlives: true, DisableCompression: true,
	}
	transport.Protocols.SetHTTP1(!h.cfg.TLS)
	transport.Protocols.SetHTTP2(h.cfg.TLS)
	answer, err := transport.RoundTrip(request)
	switch {
	case err != nil && !h.cfg.TLS && request.Context().Err() == nil:
		return nil, fmt.Errorf("%w: %w", errNoHTTP, err) // a gRPC server hangs up
	case err == nil && strings.HasPrefix(answer.Header.Get("Content-Type"), "application/grpc"):
		_ = answer.Body.Close()
		return nil, errNoHTTP
	}
	return answer, err
}
