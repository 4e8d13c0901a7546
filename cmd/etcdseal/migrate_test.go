package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// direct writes a value to etcd itself. It may have Go's escapes.
func (l *lab) direct(ts *testscript.TestScript, args []string) {
	key, err := strconv.Unquote(`"` + args[0] + `"`)
	ts.Check(err)
	value, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	l.call(ts, l.etcd, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Put(ctx, key, value)
		return err
	})
}

// remove deletes a key from etcd itself.
func (l *lab) remove(ts *testscript.TestScript, args []string) {
	l.call(ts, l.etcd, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Delete(ctx, args[0])
		return err
	})
}

// dek puts the id of the DEK of a sealed value into $DEK.
func (l *lab) dek(ts *testscript.TestScript, args []string) {
	l.call(ts, l.etcd, func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.Get(ctx, args[0])
		if err != nil || len(answer.Kvs) != 1 {
			return fmt.Errorf("reading %s: %w", args[0], err)
		}
		id, err := envelope.Parse(answer.Kvs[0].Value)
		ts.Setenv("DEK", id.String())
		return err
	})
}
