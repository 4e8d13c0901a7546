package main

import (
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/crypto/dek/filestore"
)

// openStore opens the keyring's store, whose connections are secured like the
// proxy's own. It does not wait for etcd.
func openStore(c *config.Config, secure credentials.TransportCredentials) (dek.Store, error) {
	if c.Keyring.Store == config.StoreFile {
		return filestore.Open(c.Keyring.Path)
	}
	password, err := readPassword(c.Etcd.Auth.PasswordFile)
	if err != nil {
		return nil, err
	}
	return etcdstore.Dial(etcdstore.Config{
		Endpoints:   c.Etcd.Endpoints,
		Credentials: secure,
		Username:    c.Etcd.Auth.Username,
		Password:    password,
		Prefix:      c.Keyring.Prefix,
	})
}

// readPassword reads a password without the newline at its end; without a file
// it returns "".
func readPassword(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading etcd.auth.passwordFile: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}
