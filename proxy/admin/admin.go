// Package admin serves what operators and their tools ask a running proxy: /livez, /readyz and /metrics.
//
// The address is meant for loopback or a cluster's own network: there is no authentication. Nothing served here holds a value, a key or a token, but
// a failing check's text names endpoints, KEKs and the cause.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Defaults of the durations of a Config.
const (
	DefaultCheckTimeout    = 5 * time.Second
	DefaultCacheFor        = 2 * time.Second
	DefaultShutdownTimeout = 5 * time.Second
)

// Limits on clients of the admin address. A scrape is a short request and an answer of some hundred kilobytes at most.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	maxScrapes        = 4 // at the same time; more get 503
)

// Config describes the admin server.
type Config struct {
	// Address is "host:port". Port 0 is any free one.
	Address string
	// Checks are what /readyz asks. Without any the process is ready as soon as it listens.
	Checks []Check
	// Notes returns further lines that are shown wherever those of the checks are: what
	// an operator should know and what is no reason not to be ready. It must not wait.
	// Nil: none.
	Notes func() []string
	// CheckTimeout bounds one round of checks. Zero is DefaultCheckTimeout.
	CheckTimeout time.Duration
	// CacheFor is how long the results of a round in which all checks were ready are served again. Zero is DefaultCacheFor. Others are not kept: a check
	// that fails must not hammer etcd or a KMS by itself.
	CacheFor time.Duration
	// Metrics is what /metrics shows. Nil: there is no /metrics. NewRegistry makes one.
	Metrics *prometheus.Registry
	// ShutdownTimeout bounds the wait for requests in flight when Run ends. Zero is DefaultShutdownTimeout.
	ShutdownTimeout time.Duration
	// Now is the clock of CacheFor. Nil is time.Now.
	Now func() time.Time
	// Logger gets changes of readiness. Nil logs nothing.
	Logger *slog.Logger
}

// Check is one part of readiness.
type Check struct {
	// Name is a short name without spaces, such as "etcd" or "keyring".
	Name string
	// Ready returns nil when the part is ready, else why it is not. It should return when ctx ends; it is not called again before it has returned.
	Ready func(ctx context.Context) error
}

// NewRegistry returns a registry with the collectors of the Go runtime and of the process.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// setDefaults fills in what is zero.
func (c *Config) setDefaults() {
	if c.CheckTimeout == 0 {
		c.CheckTimeout = DefaultCheckTimeout
	}
	if c.CacheFor == 0 {
		c.CacheFor = DefaultCacheFor
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = DefaultShutdownTimeout
	}
	if c.Notes == nil {
		c.Notes = func() []string { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Handler returns the handler alone, for a server of the caller's.
//
//	GET /livez    200 "ok" as long as the process can answer.
//	GET /readyz   200 "ok", or 503 and a line for each check; with ?verbose the lines come with 200 too.
//	GET /metrics  the metrics in Prometheus' text format or OpenMetrics.
func Handler(cfg Config) http.Handler {
	cfg.setDefaults()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		setPlain(w)
		io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /readyz", newReadiness(cfg))
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
			Registry:            cfg.Metrics,
			MaxRequestsInFlight: maxScrapes,
			EnableOpenMetrics:   true,
		}))
	}
	return mux
}

// setPlain says that an answer is text that must not be kept by caches.
func setPlain(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
}

// Server is an admin server that listens. Call Run to serve.
type Server struct {
	listener net.Listener
	http     http.Server
	timeout  time.Duration
}

// Open starts to listen. Requests wait until Run.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	cfg.setDefaults()
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listening on admin address %s: %w", cfg.Address, err)
	}
	return &Server{
		listener: listener,
		timeout:  cfg.ShutdownTimeout,
		http: http.Server{
			Handler:           Handler(cfg),
			ReadHeaderTimeout: readHeaderTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then lets requests in flight finish within Config.ShutdownTimeout and cuts off the rest. It returns nil when it ended because of
// ctx. It closes the listener and can be called once.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving admin address: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close() // cut off; what it says is of no use
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving admin address: %w", err)
	}
	return nil
}
