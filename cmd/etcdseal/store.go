package main

import (
	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/crypto/dek/filestore"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// openStore opens the keyring's store, whose connections are secured, and log in,
// as the pool's do. It does not wait for etcd.
func openStore(c *config.Config, pool *upstream.Pool) (dek.Store, error) {
	if c.Keyring.Store == config.StoreFile {
		return filestore.Open(c.Keyring.Path)
	}
	return etcdstore.Dial(etcdstore.Config{
		Endpoints:   c.Etcd.Endpoints,
		Credentials: pool.Credentials(),
		Tokens:      pool,
		Prefix:      c.Keyring.Prefix,
	})
}
