package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/audit"
	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/proxy"
	"github.com/etcdseal/etcdseal/proxy/admin"
	"github.com/etcdseal/etcdseal/proxy/listen"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// readyFor is how long /readyz says "ready" again without asking. Short, so that
// who watches it learns soon that something is wrong.
const readyFor = 250 * time.Millisecond

// daemon is a proxy with everything that it needs.
type daemon struct {
	file   string         // of the configuration
	config *config.Config // as it was at the start
	logger *slog.Logger
	stdout io.Writer

	audit    *audit.Log // nil if nothing is written down
	keks     map[string]kek.KEK
	remote   []kek.KEK // those that are not on this machine
	store    dek.Store
	keyring  *dek.Manager
	sealers  []*dek.Sealer // of the rules in force; after the start only reload changes it
	upstream *upstream.Pool
	listener *listen.Listener
	proxy    *proxy.Server
	admin    *admin.Server
	metrics  *proxy.Metrics

	closers  []func() error // in the order of opening
	stopping chan struct{}  // closed when the proxy is to end
}

// openDaemon opens everything and serves nothing yet. On an error it has closed
// again what it had opened.
func openDaemon(ctx context.Context, file string, cfg *config.Config, logger *slog.Logger, stdout io.Writer) (_ *daemon, err error) {
	d := &daemon{file: file, config: cfg, logger: logger, stdout: stdout, metrics: proxy.NewMetrics(), stopping: make(chan struct{})}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, open := range []func(context.Context) error{d.openAudit, d.openKEKs, d.openUpstream, d.openKeyring, d.openListener, d.openProxy, d.openAdmin} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// onClose has something closed when the daemon ends, the last one first.
func (d *daemon) onClose(f func() error) { d.closers = append(d.closers, f) }

// close closes what was opened. Run must have returned.
func (d *daemon) close() {
	for len(d.closers) > 0 {
		last := len(d.closers) - 1
		if err := d.closers[last](); err != nil {
			d.logger.Warn("closing failed", "error", err.Error())
		}
		d.closers = d.closers[:last]
	}
}

func (d *daemon) openUpstream(context.Context) error {
	c := d.config.Etcd
	pool, err := upstream.New(upstream.Config{
		Endpoints:     c.Endpoints,
		TLS:           upstream.TLS{CAFile: c.TLS.CAFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ServerName: c.TLS.ServerName},
		AllowClientCN: c.AllowClientCN,
		Auth:          upstream.Auth{Username: c.Auth.Username, PasswordFile: c.Auth.PasswordFile},
		ProbeInterval: c.ProbeInterval,
		Logger:        d.logger,
	})
	if err != nil {
		return err
	}
	d.upstream = pool
	d.onClose(pool.Close)
	return nil
}

func (d *daemon) openListener(ctx context.Context) error {
	c := d.config.Listen
	listener, err := listen.Open(ctx, listen.Config{
		Address:      c.Address,
		Insecure:     c.Insecure,
		CertFile:     c.TLS.CertFile,
		KeyFile:      c.TLS.KeyFile,
		ClientCAFile: c.TLS.ClientCAFile,
		AllowedNames: c.TLS.AllowedNames,
		Logger:       d.logger,
	})
	if err != nil {
		return err
	}
	d.listener = listener
	d.onClose(listener.Close)
	return nil
}

func (d *daemon) openProxy(context.Context) error {
	rules, sealers, err := d.rules(d.config)
	if err != nil {
		return err
	}
	d.use(sealers)
	if err := d.wrapBy(d.config); err != nil {
		return err
	}
	d.proxy = proxy.New(proxy.Config{
		Listener:      d.listener,
		Upstream:      d.upstream,
		TLS:           strings.HasPrefix(d.config.Etcd.Endpoints[0], "https://"),
		Keyring:       d.keyring,
		Reserved:      d.config.Keyring.Prefix,
		Rules:         rules,
		MaxRequest:    d.config.Limits.MaxRequestBytes,
		Memory:        int64(d.config.Limits.MemoryBytes),
		AllowMethods:  d.config.AllowMethods,
		Advertise:     d.config.Listen.Advertise,
		ShutdownGrace: d.config.ShutdownGrace,
		Metrics:       d.metrics,
		Logger:        d.logger,
	})
	return nil
}

// rules turns the configuration's rules into the proxy's, and returns the sealers
// that they need.
func (d *daemon) rules(cfg *config.Config) (_ *proxy.Rules, sealers []*dek.Sealer, _ error) {
	var rules []proxy.Rule
	for _, r := range cfg.Rules {
		rule := proxy.Rule{
			Prefix:        r.Prefix,
			DenyPlaintext: r.Plaintext == config.PlaintextDeny,
			Passthrough:   r.OnUndecryptable == config.UndecryptablePassthrough,
		}
		if r.Seal {
			sealer, err := d.keyring.Sealer(r.KEK, r.RecoveryKEKs)
			if err != nil {
				return nil, nil, fmt.Errorf("making rule for %q: %w", r.Prefix, err)
			}
			rule.Sealer = sealer
			sealers = append(sealers, sealer)
		}
		rules = append(rules, rule)
	}
	return proxy.NewRules(rules), sealers, nil
}

// use makes readiness and metrics show the sealers that the rules need, and no
// others.
func (d *daemon) use(sealers []*dek.Sealer) {
	d.sealers = sealers
	d.keyring.Use(sealers...)
}

func (d *daemon) openAdmin(ctx context.Context) error {
	registry := admin.NewRegistry()
	if err := errors.Join(registry.Register(d.metrics), registry.Register(&collector{d})); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	checks := []admin.Check{{Name: "etcd", Ready: d.upstream.Ready}, {Name: "keyring", Ready: d.keyringReady}, {Name: "keks", Ready: d.keksReady}}
	if d.audit != nil {
		checks = append(checks, admin.Check{Name: "audit", Ready: d.audit.Ready})
	}
	server, err := admin.Open(ctx, admin.Config{
		Address:  d.config.Admin.Address,
		Notes:    d.kekNotes,
		Checks:   append(checks, admin.Check{Name: "shutdown", Ready: d.notStopping}),
		CacheFor: readyFor,
		Metrics:  registry,
		Logger:   d.logger,
	})
	if err != nil {
		return err
	}
	d.admin = server
	return nil
}

// keyringReady is the part of readiness that takes a data key to seal with. While
// etcd is known to be away, a keyring in it is not asked: it would not answer
// before the time for all checks is up.
func (d *daemon) keyringReady(ctx context.Context) error {
	if d.config.Keyring.Store == config.StoreEtcd && d.upstream.Ready(ctx) != nil {
		return errors.New("not asked, since it is in etcd")
	}
	return d.keyring.Ready(ctx)
}

// notStopping is the part of readiness that sends new clients elsewhere while
// the calls in flight finish.
func (d *daemon) notStopping(context.Context) error {
	select {
	case <-d.stopping:
		return errors.New("the proxy is ending")
	default:
		return nil
	}
}

// run serves until ctx ends or a part fails. What the calls in flight need goes
// on until the last of them has ended. A hangup reloads.
func (d *daemon) run(ctx context.Context, hangups <-chan os.Signal) error {
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	for _, part := range []func(context.Context) error{d.upstream.Run, d.keyring.Run, d.admin.Run} {
		parts.Go(func() {
			if err := part(background); err != nil {
				stop(err)
			}
		})
	}
	parts.Go(func() { d.reloadOn(background, hangups) })
	parts.Go(func() { d.greetKEKs(background) })
	context.AfterFunc(serving, func() {
		close(d.stopping)
		d.logger.Info("stopping", "grace", d.config.ShutdownGrace.String())
	})
	d.logger.Info("serving", "address", address(d.listener.Addr()), "admin", address(d.admin.Addr()),
		"version", buildVersion(), "keyring", d.config.Keyring.Name, "rules", len(d.config.Rules))
	err := d.proxy.Serve(serving)
	end()
	parts.Wait()
	if ctx.Err() == nil {
		err = cmp.Or(err, context.Cause(serving))
	}
	return err
}
