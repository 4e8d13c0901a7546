package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// key returns the name of a value.
func key(i int) string { return fmt.Sprintf("%sbench/%09d", prefix, i) }

// value is 1 KiB of plaintext.
var value = strings.Repeat("0123456789abcdef", 64)

// measureRate has a bare client and encrypt take turns at the same values. A bare client that does not look first would overwrite what others
// write meanwhile; one that rewrites as it should reads each value and compares its revision, one transaction after the other.
func measureRate(ctx context.Context, r *rig, o options) (figures []figure, err error) {
	if _, err := r.blind(ctx, o.values); err != nil {
		return nil, err
	}
	var blind, sealed, careful, toBlind, toCareful []float64
	for range o.rounds {
		b, err := r.blind(ctx, o.values) // which leaves plaintext
		if err != nil {
			return nil, err
		}
		e, err := r.encrypt(ctx, o.values)
		if err != nil {
			return nil, err
		}
		c, err := r.careful(ctx, o.values)
		if err != nil {
			return nil, err
		}
		n := float64(o.values)
		blind, sealed, careful = append(blind, n/b), append(sealed, n/e.seconds), append(careful, n/c)
		toBlind, toCareful = append(toBlind, b/e.seconds), append(toCareful, c/e.seconds)
	}
	return []figure{
		{what: "bare client, blindly", value: median(blind), unit: "values/s"},
		{what: "bare client that reads and compares revisions", value: median(careful), unit: "values/s"},
		{what: "encrypt", value: median(sealed), unit: "values/s"},
		{what: "encrypt, of the careful client's rate", value: median(toCareful), limit: 0.6, least: true},
		{what: "encrypt, of the blind client's rate", value: median(toBlind)},
	}, nil
}

// blind writes all values and returns how many seconds that took.
func (r *rig) blind(ctx context.Context, n int) (float64, error) {
	start := time.Now()
	for i := 0; i < n; i += batch {
		var ops []clientv3.Op
		for j := i; j < min(i+batch, n); j++ {
			ops = append(ops, clientv3.OpPut(key(j), value))
		}
		if _, err := r.direct.Txn(ctx).Then(ops...).Commit(); err != nil {
			return 0, fmt.Errorf("writing values: %w", err)
		}
	}
	return time.Since(start).Seconds(), nil
}

// careful reads all values and writes each as it is, if it has not changed.
func (r *rig) careful(ctx context.Context, n int) (float64, error) {
	start := time.Now()
	for i := 0; i < n; i += batch {
		read, err := r.direct.Get(ctx, key(i), clientv3.WithRange(key(min(i+batch, n))))
		if err != nil {
			return 0, fmt.Errorf("reading values: %w", err)
		}
		var compare []clientv3.Cmp
		var ops []clientv3.Op
		for _, kv := range read.Kvs {
			compare = append(compare, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision))
			ops = append(ops, clientv3.OpPut(string(kv.Key), string(kv.Value)))
		}
		answer, err := r.direct.Txn(ctx).If(compare...).Then(ops...).Commit()
		if err != nil {
			return 0, fmt.Errorf("rewriting values: %w", err)
		}
		if !answer.Succeeded {
			return 0, errors.New("rewriting values: somebody else has written them")
		}
	}
	return time.Since(start).Seconds(), nil
}
