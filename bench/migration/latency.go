package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/bench/child"
)

// measureLatency has a client put values through the proxy at a fixed rate, whatever becomes of earlier puts, by turns while encrypt is at work at its
// default rate and while it is not.
func measureLatency(ctx context.Context, r *rig, o options) (figures []figure, err error) {
	if _, err := r.blind(ctx, o.values); err != nil {
		return nil, err
	}
	proxy, err := r.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, proxy.Stop()) }()
	client, err := dial(r.address)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if _, err := puts(ctx, client, o.puts, time.Second); err != nil { // a DEK is made, connections are
		return nil, err
	}
	var without, with, ratios []float64
	for round := range o.rounds {
		alone, err := puts(ctx, client, o.puts, o.window)
		if err != nil {
			return nil, err
		}
		beside, err := r.beside(ctx, round, func() ([]time.Duration, error) { return puts(ctx, client, o.puts, o.window) })
		if err != nil {
			return nil, err
		}
		a, b := p99(alone), p99(beside)
		without, with, ratios = append(without, a), append(with, b), append(ratios, b/a)
	}
	return []figure{
		{what: fmt.Sprintf("p99 of %d puts a second, alone", o.puts), value: median(without), unit: "ms"},
		{what: "beside encrypt at its default rate", value: median(with), unit: "ms"},
		{what: "ratio", value: median(ratios), limit: 2},
	}, nil
}

// beside does something while encrypt is at work, which goes on where it stopped before.
func (r *rig) beside(ctx context.Context, round int, do func() ([]time.Duration, error)) (_ []time.Duration, err error) {
	verb, err := child.Start(child.Config{
		Name: fmt.Sprintf("encrypt%d", round), Path: r.binaries.etcdseal, Args: []string{"encrypt", "--config", r.config, "--yes"}, LogDir: r.dir,
	})
	if err != nil {
		return nil, err
	}
	before, err := r.direct.Get(ctx, "x")
	if err != nil {
		return nil, errors.Join(err, verb.Stop())
	}
	took, err := do()
	if gone := verb.Err(); gone != nil {
		return nil, fmt.Errorf("measuring beside encrypt, which has come to its end (more -values are needed): %w", gone)
	}
	after, failure := r.direct.Get(ctx, "x")
	if err := errors.Join(err, failure, verb.Stop()); err != nil {
		return nil, err
	}
	if after.Header.Revision-before.Header.Revision < int64(len(took))+5 {
		return nil, errors.New("measuring beside encrypt, which wrote nothing")
	}
	return took, nil
}

// puts makes puts a second for a while, and returns how long each took from the moment at which it should have begun.
func puts(ctx context.Context, client *clientv3.Client, perSecond int, window time.Duration) ([]time.Duration, error) {
	n := int(window.Seconds() * float64(perSecond))
	took, errs := make([]time.Duration, n), make([]error, n)
	var all sync.WaitGroup
	start := time.Now()
	for i := range n {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			all.Wait()
			return nil, ctx.Err()
		}
		all.Go(func() {
			_, errs[i] = client.Put(ctx, fmt.Sprintf("%sclient/%03d", prefix, i%500), value)
			took[i] = time.Since(due)
		})
	}
	all.Wait()
	return took, errors.Join(errs...)
}

// p99 is in milliseconds.
func p99(took []time.Duration) float64 {
	s := slices.Sorted(slices.Values(took))
	return float64(s[len(s)*99/100]) / float64(time.Millisecond)
}
