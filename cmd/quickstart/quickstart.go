package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// callTimeout bounds each call to etcd.
const callTimeout = 10 * time.Second

// secretKey and secret are what kube-apiserver would write for a secret, in JSON
// (--storage-media-type=application/json), so that there is something to read.
const (
	secretKey = "/registry/secrets/default/demo"
	secret    = `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"demo","namespace":"default",` +
		`"uid":"5f0c4e0e-8a57-4c0b-9d1f-3c5a0f6e2b11","creationTimestamp":"2026-11-24T09:30:00Z"},` +
		`"data":{"username":"YWRtaW4=","password":"Y29ycmVjdCBob3JzZQ=="},"type":"Opaque"}`
)

// quickstart runs the show and stays until ctx ends, unless once is set. Whatever
// happens, nothing of it is left behind.
func quickstart(ctx context.Context, binary string, once bool, screen *screen) (err error) {
	dir, err := os.MkdirTemp("", "etcdseal-quickstart-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	screen.title("etcdseal quickstart")
	etcd, err := startEtcd(ctx, dir)
	if err != nil {
		return err
	}
	defer etcd.close()
	screen.step("etcd", etcd.url, "version "+etcd.version+", embedded in this command")

	kek := filepath.Join(dir, "kek.key")
	if err := makeKEK(ctx, binary, kek); err != nil {
		return err
	}
	screen.step("key", "etcdseal keyring new-kek --out kek.key", "a local key-encryption key")

	proxy, err := startProxy(ctx, binary, dir, etcd.url)
	if err != nil {
		return err
	}
	defer proxy.stop(stopTimeout)
	took, err := proxy.waitReady(ctx)
	if err != nil {
		return err
	}
	screen.step("etcdseal", proxy.url, fmt.Sprintf("ready %d ms after its start", took.Milliseconds()))

	read, stored, err := writeSecret(ctx, proxy.url, etcd.url)
	if err != nil {
		return err
	}
	screen.step("secret", secretKey, "written through etcdseal")
	screen.show(read, stored)
	screen.advice(proxy.url, etcd.url, dir, once)
	if once {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-proxy.ended:
		return proxy.failure()
	}
}

// writeSecret writes the secret through the proxy and returns what a client of
// the proxy reads and what etcd itself holds. It fails unless the one is the
// secret and the other an envelope.
func writeSecret(ctx context.Context, proxy, etcd string) (read, stored []byte, err error) {
	client, err := connect(proxy)
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := client.Put(ctx, secretKey, secret); err != nil {
		return nil, nil, fmt.Errorf("writing the secret through etcdseal: %w", err)
	}
	if read, err = get(ctx, client); err != nil {
		return nil, nil, fmt.Errorf("reading the secret through etcdseal: %w", err)
	}
	direct, err := connect(etcd)
	if err != nil {
		return nil, nil, err
	}
	defer direct.Close()
	if stored, err = get(ctx, direct); err != nil {
		return nil, nil, fmt.Errorf("reading what etcd holds: %w", err)
	}
	if string(read) != secret {
		return nil, nil, errors.New("reading the secret through etcdseal: it is not what was written")
	}
	if _, err := envelope.Parse(stored); err != nil || len(stored) != len(secret)+envelope.Overhead || bytes.Contains(stored, []byte("Secret")) {
		return nil, nil, errors.New("reading what etcd holds: it is not sealed")
	}
	return read, stored, nil
}

// get reads the secret's key.
func get(ctx context.Context, client *clientv3.Client) ([]byte, error) {
	response, err := client.Get(ctx, secretKey)
	if err != nil {
		return nil, err
	}
	if len(response.Kvs) != 1 {
		return nil, fmt.Errorf("there are %d values, want one", len(response.Kvs))
	}
	return response.Kvs[0].Value, nil
}

// connect returns a client of an etcd endpoint.
func connect(endpoint string) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", endpoint, err)
	}
	return client, nil
}
