package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2"
	"github.com/etcdseal/etcdseal/kek/local"
)

// openKEKs opens all KEKs and reports every one that cannot be used. One that can and
// does not answer is not among them: it may come.
func (d *daemon) openKEKs(ctx context.Context) error {
	d.keks = map[string]kek.KEK{}
	var errs []error
	for name, c := range d.config.KEKs {
		opened, provider, err := d.openKEK(name, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("opening KEK %q: %w", name, err))
			continue
		}
		d.keks[name] = opened
		d.onClose(opened.Close)
		version, err := opened.Version(ctx)
		if err != nil {
			d.logger.Warn("KEK does not answer, what needs it waits", "kek", name, "provider", provider, "error", err.Error())
			continue
		}
		d.logger.Info("KEK opened", "kek", name, "provider", provider, "keyVersion", version)
	}
	return errors.Join(errs...)
}

// openKEK opens one KEK and names its provider.
func (d *daemon) openKEK(name string, c config.KEK) (opened kek.KEK, provider string, err error) {
	switch {
	case c.KMSv2 != nil:
		opened, err = kmsv2.New(kmsv2.Config{
			Name:         name,
			Endpoint:     c.KMSv2.Endpoint,
			Timeout:      c.KMSv2.Timeout,
			PollInterval: c.KMSv2.PollInterval,
			Logger:       d.logger,
		})
		return opened, "kmsV2", err
	default:
		opened, err = local.New(local.Config{Name: name, KeyFile: c.Local.KeyFile})
		return opened, "local", err
	}
}

// openKeyring opens the keyring's store and what uses it.
func (d *daemon) openKeyring(context.Context) error {
	authKey, err := readAuthKey(d.config.Keyring.AuthKeyFile)
	if err != nil {
		return err
	}
	defer clear(authKey)
	if d.store, err = openStore(d.config, d.upstream); err != nil {
		return err
	}
	d.onClose(d.store.Close)
	d.keyring, err = dek.New(dek.Config{
		Store:    d.store,
		Keyring:  d.config.Keyring.Name,
		AuthKey:  authKey,
		KEKs:     d.keks,
		Logger:   d.logger,
		Observer: d.metrics,

		RotateLag: rotateLag(d.config),
	})
	if err != nil {
		return err
	}
	d.onClose(func() error { d.keyring.Close(); return nil })
	return nil
}

// authKeySize is the size of the keyring's authentication key in bytes.
const authKeySize = 32

// readAuthKey reads the keyring's authentication key: 64 hexadecimal digits and
// at most one newline. Without a file it returns nil. The errors hold nothing of
// the content.
func readAuthKey(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("reading keyring.authKeyFile: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("reading keyring.authKeyFile: %s has mode %#o, want 0600, for nobody but its owner may know it: run `chmod 600 %s`", file, perm, file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading keyring.authKeyFile: %w", err)
	}
	defer clear(content)
	key, err := hex.DecodeString(strings.TrimSuffix(string(content), "\n"))
	if err != nil || len(key) != authKeySize {
		return nil, fmt.Errorf("reading keyring.authKeyFile: %s does not hold %d hexadecimal digits: `openssl rand -hex %d` makes them", file, 2*authKeySize, authKeySize)
	}
	return key, nil
}
