package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/etcdseal/etcdseal/config"
)

// reloadOn reloads at every hangup until ctx ends.
func (d *daemon) reloadOn(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			d.reload()
		}
	}
}

// reload reads certificates and rules again, and opens the audit file anew. Each part that cannot be used stays
// as it is, and the log says why.
func (d *daemon) reload() {
	d.reopenAudit()
	if err := errors.Join(d.listener.Reload(), d.upstream.Reload()); err != nil {
		d.logger.Error("certificates were not reloaded, the old ones stay", "error", err.Error())
	}
	if err := d.reloadRules(); err != nil {
		d.logger.Error("rules were not reloaded, the old ones stay", reason(err)...)
	}
}

// reason returns an error as attributes of a log line, the problems of a
// configuration file one by one.
func reason(err error) []any {
	if problems, ok := errors.AsType[*config.Error](err); ok {
		return []any{"file", problems.File, "problems", problems.Problems}
	}
	return []any{"error", err.Error()}
}

// reloadRules puts the rules of the file, as it is now, in force.
func (d *daemon) reloadRules() error {
	next, err := loadConfig(d.file)
	if err != nil {
		return err
	}
	pinned := d.config.Pinned(next)
	if slices.Contains(pinned, "keyring") {
		// The new rules were checked against another reserved prefix.
		return errors.New("keyring has changed, which takes a restart")
	}
	rules, sealers, err := d.rules(next)
	if err != nil {
		d.use(d.sealers) // not those that were made before the error
		return err
	}
	if err := d.wrapBy(next); err != nil {
		d.use(d.sealers)
		return err
	}
	d.proxy.SetRules(rules)
	d.use(sealers)
	d.logger.Info("rules reloaded", "rules", len(next.Rules))
	if len(pinned) > 0 {
		d.logger.Warn("the file has changes that take a restart", "fields", strings.Join(pinned, ", "))
	}
	return nil
}
