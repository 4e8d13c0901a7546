// Package gateway answers HTTP requests that are not gRPC, as etcd does on its client
// port: etcd's JSON API under /v3/, and what etcd says of itself (/version, /health,
// /livez, /readyz, /metrics).
//
// The JSON API is etcd's own generated code over a gRPC connection to the proxy
// itself, so that a value is guarded, sealed and opened by the very code that does it
// for gRPC clients; this package sees plaintext and knows no key. What etcd says of
// itself is fetched from etcd's own HTTP endpoint: a closed list of exact paths, asked
// with a request made here, of which nothing but the query, Accept and Accept-Encoding
// is the client's. Every other path is answered here, so none leads to etcd.
//
// The threat covered is a request that reaches etcd's JSON API raw, and a page in a
// browser on the machine of somebody who may connect: requests that carry another
// Origin than their Host are refused, and no CORS header allows them. So are pages
// loaded without TLS from a name, which may have been made to point here (DNS rebinding).
package gateway

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	gw "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	etcdgw "go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	electiongw "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw"
	lockgw "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
)

// Config is what a Handler works with.
type Config struct {
	// Proxy is a connection to the proxy itself. Somebody else closes it.
	Proxy *grpc.ClientConn
	// Dial connects to etcd and names it as a Host header would. With TLS it returns a
	// *tls.Conn that has negotiated HTTP/2. done ends the connection.
	Dial func(ctx context.Context) (conn net.Conn, host string, done func(), err error)
	TLS  bool
	// Token returns the token of the proxy's own calls, empty for none. Nil is none.
	Token func(ctx context.Context) (string, error)
	// MaxRequest is the largest message in bytes that the proxy takes.
	MaxRequest int
	// Memory bounds the JSON, in bytes, that is read into memory for all requests
	// together; 0 is no bound.
	Memory int64
	// Logger is told of failures, at Debug; nil is none.
	Logger *slog.Logger
	// Observe, if not nil, is told of each answer: one of the APIs below, and the
	// status.
	Observe func(api string, status int)
}

// APIs that Config.Observe is told of.
const (
	apiJSON  = "json" // etcd's JSON API
	apiEtcd  = "etcd" // what etcd says of itself
	apiOther = "other"
)

// Handler is the http.Handler. It is safe for concurrent use.
type Handler struct {
	cfg  Config
	mux  *http.ServeMux
	json *gw.ServeMux
	// limit is the longest JSON of one message, in bytes.
	limit int64
}

// New returns a handler.
func New(cfg Config) *Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, int) {}
	}
	h := &Handler{cfg: cfg, limit: jsonFactor*int64(cfg.MaxRequest) + jsonSlack}
	h.json = newJSON(cfg, h.limit)
	// Two muxes, as etcd has (embed/serve.go): both clean paths, by a redirect.
	own := http.NewServeMux()
	for _, path := range etcdPaths {
		own.HandleFunc(path, h.observed(apiEtcd, h.askEtcd))
	}
	own.HandleFunc("/debug/", h.observed(apiOther, refuseDebug))
	own.HandleFunc("/", h.observed(apiOther, http.NotFound))
	h.mux = http.NewServeMux()
	h.mux.HandleFunc("/v3/", h.observed(apiJSON, h.serveJSON))
	h.mux.Handle("/", own)
	return h
}

// newJSON registers etcd's JSON API with etcd's own options (embed/serve.go), except
// that a message is bounded before it is decoded.
func newJSON(cfg Config, limit int64) *gw.ServeMux {
	mux := gw.NewServeMux(gw.WithMarshalerOption(gw.MIMEWildcard, &marshaler{
		limit:             limit,
		memory:            cfg.Memory,
		HTTPBodyMarshaler: gw.HTTPBodyMarshaler{Marshaler: newMarshaler()},
	}))
	for _, register := range []func(context.Context, *gw.ServeMux, *grpc.ClientConn) error{
		etcdgw.RegisterKVHandler,
		etcdgw.RegisterWatchHandler,
		etcdgw.RegisterLeaseHandler,
		etcdgw.RegisterClusterHandler,
		etcdgw.RegisterMaintenanceHandler,
		etcdgw.RegisterAuthHandler,
		lockgw.RegisterLockHandler,
		electiongw.RegisterElectionHandler,
	} {
		if err := register(context.Background(), mux, cfg.Proxy); err != nil {
			panic(err) // it has nothing that can fail
		}
	}
	return mux
}

// newMarshaler is etcd's (embed/serve.go).
func newMarshaler() *gw.JSONPb {
	return &gw.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
	}
}

// Long reports whether requests to a path go on for as long as their client wants.
func Long(path string) bool {
	if rest, ok := strings.CutPrefix(path, "/v3beta/"); ok {
		path = "/v3/" + rest
	}
	switch path {
	case "/v3/watch", "/v3/lease/keepalive", "/v3/election/observe":
		return true
	}
	return false
}

// ServeHTTP implements http.Handler. It panics only with http.ErrAbortHandler, which
// servers take as the end of one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler { // its text may hold what the client sent
				h.cfg.Logger.Error("a request's handler has failed", "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}
	}()
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok { // as etcd does
		r.URL.Path = "/v3/" + rest
	}
	switch {
	case foreign(r):
		h.observed(apiOther, refuseForeign)(w, r)
	case r.Method == http.MethodOptions:
		h.observed(apiOther, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })(w, r)
	default:
		h.mux.ServeHTTP(w, r)
	}
}

// foreign reports whether a browser sent a request for a page of another origin, or for
// one that may be: without TLS a name proves nothing, but for localhost.
func foreign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
		return true
	}
	return u.Scheme != "https" && u.Hostname() != "localhost" && net.ParseIP(u.Hostname()) == nil
}

func refuseForeign(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "etcdseal: pages of other origins are not served", http.StatusForbidden)
}

func refuseDebug(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "etcdseal: what is for debugging etcd is not served here; ask etcd itself", http.StatusNotFound)
}

// observed counts the answers of a handler.
func (h *Handler) observed(api string, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o := &observedWriter{ResponseWriter: w, status: http.StatusOK}
		serve(o, r)
		h.cfg.Observe(api, o.status)
	}
}

// observedWriter remembers the status of an answer.
type observedWriter struct {
	http.ResponseWriter
	status int
	chosen bool
}

// WriteHeader implements http.ResponseWriter.
func (w *observedWriter) WriteHeader(status int) {
	if !w.chosen {
		w.status, w.chosen = status, status >= 200
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *observedWriter) Write(b []byte) (int, error) {
	w.chosen = true
	return w.ResponseWriter.Write(b)
}

// Hijack implements http.Hijacker, for websockets.
func (w *observedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status, w.chosen = http.StatusSwitchingProtocols, true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap is for http.ResponseController.
func (w *observedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
