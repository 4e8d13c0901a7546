package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

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
		Auditor:  d.auditor(),

		RotateLag:     rotateLag(d.config),
		KEKTimeout:    d.kekTimeout(),
		CheckInterval: d.config.Outage.CheckInterval,
		DeniedGrace:   d.config.Outage.DeniedGrace,
		OfflineLimit:  d.config.Outage.OfflineLimit,
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
