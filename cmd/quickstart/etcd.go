package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdTimeout bounds the wait for etcd's first leader.
const etcdTimeout = 30 * time.Second

// etcd is a single-member etcd in this process.
type etcd struct {
	url     string
	version string
	server  *embed.Etcd
}

// startEtcd starts an etcd with its data in dir, on a free loopback port.
func startEtcd(ctx context.Context, dir string) (*etcd, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	client := url.URL{Scheme: "http", Host: address}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}
	cfg := embed.NewConfig()
	cfg.Name = "quickstart"
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.LogOutputs = []string{filepath.Join(dir, "etcd.log")}
	cfg.UnsafeNoFsync = true // the data is thrown away
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	e := &etcd{url: client.String(), version: version.Version, server: server}
	select {
	case <-server.Server.ReadyNotify():
		return e, nil
	case err = <-server.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(etcdTimeout):
		err = errors.New("it does not become ready")
	}
	e.close()
	return nil, fmt.Errorf("starting etcd: %w", err)
}

// close ends etcd and waits for it.
func (e *etcd) close() { e.server.Close() }

// freeAddress returns a loopback address that nobody listens on. Somebody may do
// so before etcd does; then etcd says so.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	address := listener.Addr().String()
	return address, listener.Close()
}
