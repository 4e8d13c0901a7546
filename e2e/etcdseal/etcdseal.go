// Package etcdseal runs the built etcdseal binary. It knows the program from
// outside only: its command line, configuration file, admin endpoint, signals
// and logs.
//
// Every proxy is checked when its test ends: no planted plaintext in its logs
// or metrics, no panic, no data race.
package etcdseal

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/etcdseal/etcdseal/e2e/pki"
	"github.com/etcdseal/etcdseal/e2e/process"
)

const (
	startLimit   = 60 * time.Second
	stopLimit    = 60 * time.Second
	commandLimit = 60 * time.Second
	dialLimit    = 10 * time.Second
	// firstRetry is the pause of a client before it connects again.
	firstRetry = 5 * time.Millisecond
)

// Proxy is one etcdseal. It keeps its addresses over restarts. Its methods are
// for the test's own goroutine unless they say otherwise.
type Proxy struct {
	owner   testing.TB
	cfg     Config
	dir     string
	address string
	admin   string
	log     *process.Log
	process *process.Process
}

// NewKEK makes a local KEK file with the binary's own verb.
func NewKEK(t testing.TB, binaries string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kek.key")
	process.Run(t, commandLimit, filepath.Join(binaries, "etcdseal"), "keyring", "new-kek", "--out", file)
	return file
}

// Start starts a proxy and waits until it is ready. It is killed when t ends,
// however often it was started again by then.
func Start(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	p := New(t, cfg)
	p.Run(t)
	p.WaitReady(t)
	return p
}

// New prepares a proxy without starting it.
func New(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	p := &Proxy{
		owner: t,
		cfg:   cfg,
		dir:   t.TempDir(),
		admin: process.FreeAddress(t),
		log:   process.NewLog(t, "etcdseal"+cfg.Name),
	}
	p.address = process.FreeAddress(t)
	if cfg.Socket != "" {
		p.address = "unix://" + cfg.Socket
	}
	t.Cleanup(func() { p.check(t) })
	return p
}

// Run starts the proxy, the first time or after it has ended, and does not
// wait until it is ready.
func (p *Proxy) Run(t testing.TB) {
	t.Helper()
	p.writeConfig(t)
	p.process = process.Start(t, process.Config{
		Path:  filepath.Join(p.cfg.Binaries, "etcdseal"),
		Args:  []string{"serve", "--config", p.ConfigFile()},
		Env:   p.cfg.Env,
		Dir:   p.dir,
		Log:   p.log,
		Owner: p.owner,
	})
	p.owner.Cleanup(func() { p.checkMetrics(p.owner) })
}

// WaitReady waits until /readyz says that the proxy is ready.
func (p *Proxy) WaitReady(t testing.TB) {
	t.Helper()
	p.process.WaitFor(t, startLimit, "etcdseal to be ready", func(ctx context.Context) error {
		status, text, err := p.Admin(ctx, "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("/readyz answered %d: %s", status, text)
		}
		return err
	})
}

// Reload rewrites the configuration file with change applied and sends SIGHUP.
// When the new rules take effect is for the caller to find out.
func (p *Proxy) Reload(t testing.TB, change func(*Config)) {
	t.Helper()
	change(&p.cfg)
	p.writeConfig(t)
	p.process.Signal(t, syscall.SIGHUP)
}

// Change changes what the next run is configured with, and writes the file.
func (p *Proxy) Change(t testing.TB, change func(*Config)) {
	t.Helper()
	change(&p.cfg)
	p.writeConfig(t)
}

// Tool runs another verb of the binary with the proxy's configuration and returns what
// it printed.
func (p *Proxy) Tool(t testing.TB, verb string, args ...string) string {
	t.Helper()
	args = append([]string{verb, "--config", p.ConfigFile()}, args...)
	return process.Run(t, commandLimit, filepath.Join(p.cfg.Binaries, "etcdseal"), args...)
}

// Restart ends the proxy by SIGTERM, starts it again and waits until it is
// ready.
func (p *Proxy) Restart(t testing.TB) {
	t.Helper()
	p.Stop(t)
	p.Run(t)
	p.WaitReady(t)
}

// Stop ends the proxy by SIGTERM and waits for it. It must exit with status 0.
func (p *Proxy) Stop(t testing.TB) {
	t.Helper()
	p.checkMetrics(t)
	p.Process().Signal(t, syscall.SIGTERM)
	if state := p.Process().Wait(t, stopLimit); state.ExitCode() != 0 {
		t.Errorf("etcdseal ended with %v after SIGTERM, want exit status 0", state)
	}
}

// Process is the running or last process of the proxy.
func (p *Proxy) Process() *process.Process { return p.process }

// Endpoint is what etcd's clients take for the proxy: an URL.
func (p *Proxy) Endpoint() string {
	switch {
	case p.cfg.Socket != "":
		return p.address
	case p.cfg.ListenTLS.CertFile != "":
		return "https://" + p.address
	default:
		return "http://" + p.address
	}
}

// Address is host:port, or the URL of the unix socket.
func (p *Proxy) Address() string { return p.address }

// Dir is the folder with the configuration, in which the proxy runs.
func (p *Proxy) Dir() string { return p.dir }

// LogText is what the proxy has logged so far, over all restarts.
func (p *Proxy) LogText(t testing.TB) string { return p.log.Text(t) }

// ClientConfig configures an etcd client to talk to the proxy. With a listener
// under TLS, authority and client give the client's certificate. The client
// reconnects within moments: after an outage of etcd its calls are there before
// the proxy's own, which is when the proxy must be careful.
func (p *Proxy) ClientConfig(t testing.TB, authority *pki.Authority, client pki.Files) clientv3.Config {
	t.Helper()
	cfg := clientv3.Config{
		Endpoints:   []string{p.Endpoint()},
		DialTimeout: dialLimit,
		Logger:      zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 1, MaxDelay: firstRetry},
			MinConnectTimeout: dialLimit,
		})},
	}
	if p.cfg.ListenTLS.CertFile != "" {
		cfg.TLS = authority.ClientConfig(t, client)
	}
	return cfg
}

// Client is an etcd client that talks to the proxy, as ClientConfig says,
// closed when t ends.
func (p *Proxy) Client(t testing.TB, authority *pki.Authority, client pki.Files) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(p.ClientConfig(t, authority, client))
	if err != nil {
		t.Fatalf("making etcd client of the proxy: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ConfigFile is the path of the proxy's configuration.
func (p *Proxy) ConfigFile() string { return filepath.Join(p.dir, "etcdseal.yaml") }

func (p *Proxy) writeConfig(t testing.TB) {
	t.Helper()
	text := p.cfg.render(t, p.address, p.admin)
	if err := os.WriteFile(p.ConfigFile(), []byte(text), 0o600); err != nil {
		t.Fatalf("writing configuration: %v", err)
	}
}
