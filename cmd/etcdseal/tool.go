package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/etcdseal/etcdseal/migrate"
	"github.com/etcdseal/etcdseal/proxy"
)

// tool is what the verbs that work on an etcd in use have open: the parts of a daemon
// that serve nobody, and a client of etcd with the proxy's own identity.
type tool struct {
	*daemon
	client *migrate.Client
	end    func() // ends what goes on beside
}

// openTool opens what a configuration names. Its listener is not touched, so that a
// proxy may run beside. The caller closes the tool.
func openTool(ctx context.Context, file string, logger *slog.Logger) (_ *tool, err error) {
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	d := &daemon{file: file, config: cfg, logger: logger, metrics: proxy.NewMetrics()}
	t := &tool{daemon: d, end: func() {}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for _, open := range []func(context.Context) error{d.openKEKs, d.openUpstream, d.openKeyring} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	t.client, err = migrate.Dial(migrate.DialConfig{Endpoints: cfg.Etcd.Endpoints, Credentials: d.upstream.Credentials(), Tokens: d.upstream})
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

func (t *tool) close() {
	t.end()
	t.daemon.close()
}

// migrateRules turns the configuration's rules into those of package migrate.
func (t *tool) migrateRules() ([]migrate.Rule, error) {
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

// errNotConfirmed says that somebody thought better of it.
var errNotConfirmed = errors.New("nothing was done: answer `yes`, or say --yes")

// confirm asks before data is changed.
func confirm(s streams, question string) error {
	fmt.Fprintf(s.err, "%s Type yes to go on: ", question)
	var answer string
	_, _ = fmt.Fscanln(s.in, &answer) // no answer is a no
	if strings.TrimSpace(answer) != "yes" {
		return errNotConfirmed
	}
	return nil
}
