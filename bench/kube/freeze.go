package kube

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/etcdseal/etcdseal/bench/child"
)

const (
	// quietShare is the share of one processor up to which a side counts as quiet. An idle kube-apiserver needs a few hundredths.
	quietShare = 0.10
	// quietWindow is the time over which that is looked at.
	quietWindow = 50 * time.Millisecond
	// quietLimit bounds the wait. A side that is busy for longer is measured as it is.
	quietLimit = 10 * time.Second
)

// freeze stops all processes of the side, those first that depend on others.
func (s *side) freeze() error {
	s.frozen = true
	for _, p := range slices.Backward(s.processes()) {
		if err := p.Freeze(); err != nil {
			return err
		}
	}
	return nil
}

// resume lets the side go on where it was. It is enough for one that was frozen for a moment. All processes are thawed, also when one of them fails:
// the side counts as frozen until none has.
func (s *side) resume() error {
	var errs []error
	for _, p := range s.processes() {
		errs = append(errs, p.Thaw())
	}
	err := errors.Join(errs...)
	s.frozen = err != nil
	return err
}

// thaw lets the side go on and waits until kube-apiserver is ready, has written a secret (a KMS v2 plugin that could not be asked for three minutes makes
// it refuse that until it has asked again), and has caught up with its timers.
func (s *side) thaw(ctx context.Context) error {
	if err := s.resume(); err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	s.probes++
	if err := waitUntil(ctx, "a secret to be written", s.server, func(ctx context.Context) error { return s.client.do(ctx, updateOf(probe, s.probes)) }); err != nil {
		return err
	}
	return s.settle(ctx)
}

// settle waits until the side does next to nothing.
func (s *side) settle(ctx context.Context) error {
	tick := time.NewTicker(quietWindow)
	defer tick.Stop()
	begin := time.Now()
	at, before := begin, usage{}
	for first := true; ; first = false {
		now, err := s.usage()
		if err != nil {
			return err
		}
		quiet := now.since(before).sum() < time.Duration(quietShare*float64(time.Since(at)))
		if !first && quiet || time.Since(begin) > quietLimit {
			return nil
		}
		at, before = time.Now(), now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// usage is the processor time that each part of a side has used.
type usage struct{ server, between, etcd time.Duration }

func (u usage) sum() time.Duration { return u.server + u.between + u.etcd }

func (u usage) plus(more usage) usage {
	return usage{server: u.server + more.server, between: u.between + more.between, etcd: u.etcd + more.etcd}
}

// since is what was used after an earlier look.
func (u usage) since(before usage) usage {
	return usage{server: u.server - before.server, between: u.between - before.between, etcd: u.etcd - before.etcd}
}

// usage fails when a process has ended.
func (s *side) usage() (u usage, err error) {
	for _, of := range []struct {
		process *child.Process
		into    *time.Duration
	}{{s.server, &u.server}, {s.between, &u.between}, {s.etcd, &u.etcd}} {
		if of.process == nil {
			continue
		}
		if err := of.process.Err(); err != nil {
			return usage{}, err
		}
		if *of.into, err = of.process.CPU(); err != nil {
			return usage{}, err
		}
	}
	return u, nil
}
