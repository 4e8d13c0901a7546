package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/etcdseal/etcdseal/migrate"
)

// etcdTool is what the verbs that work on the values in etcd have open: a keyring that
// knows what happens to its records, and a client of etcd with the proxy's own identity.
type etcdTool struct {
	*daemon
	client *migrate.Client
	end    func() // ends what goes on beside
}

// openEtcdTool opens what verbs need that work on values. Its listener is not touched, so
// that a proxy may run beside. Rotation is left to proxies and to `etcdseal rotate`: these
// verbs may run for long, some of them only look, and their configuration may be one that is
// being tried out. The caller closes the tool.
func openEtcdTool(ctx context.Context, file string, stdout io.Writer, logger *slog.Logger) (_ *etcdTool, err error) {
	d, err := openTool(ctx, file, stdout, logger)
	if err != nil {
		return nil, err
	}
	t := &etcdTool{daemon: d, end: func() {}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.client, err = d.dialEtcd(); err != nil {
		return nil, err
	}
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	for _, part := range []func(context.Context) error{d.upstream.Run, d.keyring.Run} {
		parts.Go(func() {
			if err := part(background); err != nil {
				logger.Error("stopped by a failure", "error", err.Error())
			}
		})
	}
	t.end = func() { end(); parts.Wait() }
	return t, nil
}

// dialEtcd returns a client of etcd with the proxy's own identity, which is closed with
// the daemon.
func (d *daemon) dialEtcd() (*migrate.Client, error) {
	client, err := migrate.Dial(migrate.DialConfig{Endpoints: d.config.Etcd.Endpoints, Credentials: d.upstream.Credentials(), Tokens: d.upstream})
	if err != nil {
		return nil, err
	}
	d.onClose(client.Close)
	return client, nil
}

// openKeyless opens what there is without any KEK: the audit log, the keyring's store and
// a client of etcd. Nothing goes on beside. The caller closes the tool.
func openKeyless(ctx context.Context, file string, stdout io.Writer, logger *slog.Logger) (_ *etcdTool, err error) {
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	t := &etcdTool{daemon: &daemon{file: file, config: cfg, logger: logger, stdout: stdout}, end: func() {}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for _, open := range []func(context.Context) error{t.openAudit, t.openUpstream} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	if t.store, err = openStore(cfg, t.upstream); err != nil {
		return nil, err
	}
	t.onClose(t.store.Close)
	t.client, err = t.dialEtcd()
	return t, err
}

func (t *etcdTool) close() {
	t.end()
	t.daemon.close()
}

// migrateRules turns the configuration's rules into those of package migrate.
func (t *etcdTool) migrateRules() ([]migrate.Rule, error) {
	var rules []migrate.Rule
	for _, r := range t.config.Rules {
		rule := migrate.Rule{Prefix: r.Prefix}
		if r.Seal {
			sealer, err := t.keyring.Sealer(r.KEK, r.RecoveryKEKs)
			if err != nil {
				return nil, fmt.Errorf("making rule for %q: %w", r.Prefix, err)
			}
			rule.Sealer = sealer
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// toolLogger returns a logger of what goes wrong on the way, as text for people.
func toolLogger(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
