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

// openEtcdTool is openTool for verbs that work on values. Its listener is not touched, so
// that a proxy may run beside. The caller closes the tool.
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
	t.client, err = migrate.Dial(migrate.DialConfig{Endpoints: d.config.Etcd.Endpoints, Credentials: d.upstream.Credentials(), Tokens: d.upstream})
	if err != nil {
		return nil, err
	}
	d.onClose(t.client.Close)
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
