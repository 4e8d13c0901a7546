// Package upstream connects to etcd: it knows which members of the cluster can be used, spreads raw connections over them, and authenticates the proxy's
// own calls.
//
// A Pool asks every endpoint for its status from time to time (Maintenance.Status over one idle gRPC connection for each). A member that does not answer,
// has no leader or is a learner gets no new connection while a better one exists, and connections on it are told to drain once a healthy one exists. A
// single bad answer takes a member out of the choice but drains nothing: elections and pauses are over in a moment, and moving every watch of an API server
// is not free.
//
// The package guarantees that a connection to a TLS endpoint is verified against the configured CA and the endpoint's own host name, speaks HTTP/2 by
// ALPN, and presents no client certificate that would make etcd take token-less callers for somebody: etcd's client-certificate authentication makes
// the certificate's CN the user of every call without a token (etcd server/auth/store.go), so a certificate with a CN is refused unless it is allowed.
package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/proxy/certs"
)

// Defaults of the durations of a Config.
const (
	DefaultProbeInterval = 5 * time.Second
	DefaultProbeTimeout  = 3 * time.Second
	DefaultDialTimeout   = 5 * time.Second
)

// Config describes the etcd cluster and how to reach it.
type Config struct {
	// Endpoints are the client URLs of the members: http://host:port, https://host:port, unix:///path or unixs:///path. All of them speak TLS or none.
	Endpoints []string
	// TLS is used by https and unixs endpoints.
	TLS TLS
	// AllowClientCN allows a client certificate with a common name. With etcd's --client-cert-auth and authentication enabled, every caller of the proxy
	// that sends no token is then the etcd user of that name.
	AllowClientCN bool
	// Auth is the etcd user of the proxy's own calls. The calls of clients carry their own tokens.
	Auth Auth
	// ProbeInterval is the time between two probes of a healthy endpoint; others are probed every second, or as often as this if it is less. Zero is
	// DefaultProbeInterval.
	ProbeInterval time.Duration
	// ProbeTimeout bounds one probe, and one Authenticate call. Zero is DefaultProbeTimeout.
	ProbeTimeout time.Duration
	// DialTimeout bounds one call of Dial, whatever the number of endpoints it tries. Zero is DefaultDialTimeout.
	DialTimeout time.Duration
	// Now and After are the clock: time.Now and time.After if nil.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// Observer is told what happened, for metrics. Nil tells nobody.
	Observer Observer
	// Logger gets every change of an endpoint's health. Nil logs nothing.
	Logger *slog.Logger
}

// TLS names the files for connections to etcd, all in PEM and all optional. They are read again when they change.
type TLS struct {
	// CAFile holds the CA certificates that etcd's certificate must lead to. Empty: the system's.
	CAFile string
	// CertFile and KeyFile are the client certificate shown to etcd. Both or neither.
	CertFile, KeyFile string
	// ServerName is the name that etcd's certificate must bear. Empty: the host of each endpoint; the last element of the path for unixs.
	ServerName string
	// ReloadInterval is the least time between two looks at the files. Zero is certs.DefaultInterval.
	ReloadInterval time.Duration
}

// Auth is an etcd user.
type Auth struct {
	// Username is empty when the proxy's own calls need no token.
	Username string
	// PasswordFile holds the password; one line end after it is ignored. It is read at every Authenticate call.
	PasswordFile string
}

// Observer receives measurements. Its methods must not block and must be safe for concurrent use. Endpoints are named as in Config.Endpoints.
type Observer interface {
	// EndpointProbed tells what a probe found and how long it took.
	EndpointProbed(endpoint string, health Health, took time.Duration)
	// EndpointDialed tells how an attempt to connect to one endpoint ended.
	EndpointDialed(endpoint string, err error, took time.Duration)
}

// Pool knows the endpoints of one cluster. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	source *certs.Source // nil when no endpoint speaks TLS
	tokens tokens
	base   context.Context // ends with Close; parent of what outlives a caller
	stop   context.CancelFunc
	watch  sync.WaitGroup // goroutines that watch a probe's connection

	mu        sync.Mutex // guards turn and what endpoint says
	endpoints []*endpoint
	turn      int
}

// New validates the configuration and reads the certificates. It connects to nothing: Run, Probe and Dial do. Call Close when done.
func New(cfg Config) (*Pool, error) {
	setDefaults(&cfg)
	addresses, err := parseEndpoints(cfg.Endpoints)
	if err := errors.Join(err, cfg.validate()); err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, dial: newDialer().DialContext}
	secure := addresses[0].secure
	if secure {
		if p.source, err = openCertificates(cfg); err != nil {
			return nil, err
		}
	} else if cfg.TLS.CAFile != "" || cfg.TLS.CertFile != "" {
		return nil, errors.New("validating etcd connection: TLS files are given but the endpoints are not https:// or unixs://")
	}
	for _, a := range addresses {
		p.endpoints = append(p.endpoints, newEndpoint(a))
	}
	p.base, p.stop = context.WithCancel(context.Background())
	return p, nil
}

// setDefaults fills in what is zero.
func setDefaults(cfg *Config) {
	for d, def := range map[*time.Duration]time.Duration{
		&cfg.ProbeInterval: DefaultProbeInterval,
		&cfg.ProbeTimeout:  DefaultProbeTimeout,
		&cfg.DialTimeout:   DefaultDialTimeout,
	} {
		if *d == 0 {
			*d = def
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.Observer == nil {
		cfg.Observer = silent{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

// validate reports what is wrong with everything but the endpoints.
func (c Config) validate() error {
	var errs []error
	if c.ProbeInterval < 0 || c.ProbeTimeout < 0 || c.DialTimeout < 0 {
		errs = append(errs, errors.New("validating etcd connection: a duration is negative"))
	}
	if (c.Auth.Username == "") != (c.Auth.PasswordFile == "") {
		errs = append(errs, errors.New("validating etcd connection: auth username and passwordFile are needed together"))
	} else if c.Auth.Username != "" {
		_, err := readPassword(c.Auth.PasswordFile)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// readPassword reads a password without the line end that editors put after it.
func readPassword(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading etcd password: %w", err)
	}
	if n := len(content); n > 0 && content[n-1] == '\n' {
		content = content[:n-1]
	}
	if n := len(content); n > 0 && content[n-1] == '\r' {
		content = content[:n-1]
	}
	if len(content) == 0 {
		return "", fmt.Errorf("reading etcd password: %s is empty", file)
	}
	return string(content), nil
}

// refuseCN refuses a client certificate with a common name.
func refuseCN(leaf *x509.Certificate) error {
	if cn := leaf.Subject.CommonName; cn != "" {
		return fmt.Errorf("the client certificate for etcd has the common name %q: with etcd's authentication every caller that sends no token would be "+
			"that user; use a certificate without a CN, or set allowClientCN", cn)
	}
	return nil
}

// Reload reads the certificate files now. On an error the ones in use stay. Without TLS it does nothing.
func (p *Pool) Reload() error {
	if p.source == nil {
		return nil
	}
	return p.source.Reload()
}

// CertificateExpiry returns when the client certificate in use expires, and false when there is none.
func (p *Pool) CertificateExpiry() (time.Time, bool) {
	if p.source == nil || p.source.Leaf() == nil {
		return time.Time{}, false
	}
	return p.source.Leaf().NotAfter, true
}

// Close closes the probes' connections and waits for their goroutines. Connections from Dial stay open. Run must have returned before, and Token must
// not be called any more.
func (p *Pool) Close() error {
	p.stop()
	var errs []error
	for _, e := range p.endpoints {
		errs = append(errs, e.disconnect())
	}
	p.watch.Wait()
	return errors.Join(errs...)
}

// silent is the Observer that tells nobody.
type silent struct{}

func (silent) EndpointProbed(string, Health, time.Duration) {}
func (silent) EndpointDialed(string, error, time.Duration)  {}
