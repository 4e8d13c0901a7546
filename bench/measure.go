package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/bench/fanout"
	"github.com/etcdseal/etcdseal/bench/idle"
	"github.com/etcdseal/etcdseal/bench/keys"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/storm"
	"github.com/etcdseal/etcdseal/bench/turns"
	"github.com/etcdseal/etcdseal/bench/wire"
	"github.com/etcdseal/etcdseal/bench/workload"
)

// The rounds of measurements whose rounds are long.
const (
	fanoutRounds = 5
	fanoutTurn   = 2 * time.Second
	stormRounds  = 3
)

// measure does what the options ask and always leaves no process and no file behind but the binaries, profiles and the report.
func measure(ctx context.Context, o options, stderr io.Writer) (rep *report.Report, err error) {
	machine, err := report.ReadMachine(time.Now()) // before the builds, which are load
	if err != nil {
		return nil, err
	}
	bin, err := o.build.Make(ctx, stderr)
	if err != nil {
		return nil, err
	}
	version, err := bin.EtcdVersion(ctx)
	if err != nil {
		return nil, err
	}
	machine.Versions = append(machine.Versions, report.Version{Name: "etcd", Version: version})
	profiles, err := newProfiles(o.profile)
	if err != nil {
		return nil, err
	}
	others, err := report.WatchOthers()
	if err != nil {
		return nil, err
	}
	defer func() { // after everything that was started has ended
		if rep != nil {
			cores, othersErr := others.Cores(machine.Cores)
			rep.Machine.Others, err = cores, errors.Join(err, othersErr)
			rep.Set("other work, "+strings.Join(o.parts, ", "), fmt.Sprintf("%.1f cores before, %.1f during it", machine.Load, cores))
		}
	}()
	r, err := rig.New(ctx, rig.Config{Binaries: bin, Dir: o.dir, Seal: o.needsSeal(), Profiles: profiles.dir, Stderr: stderr})
	if r != nil {
		defer func() { err = errors.Join(err, r.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	rep = &report.Report{Machine: machine}
	rep.Set("etcd", "one member on the same machine, without fsync")
	rep.Set("rounds", fmt.Sprintf("%d, in which the targets take turns of %s in changing order; ratios are of one round, shown are medians (least..most)", o.rounds, o.duration))
	rep.Set("clients", fmt.Sprintf("one process with %d connections, on the same machine", turns.Connections))
	for _, step := range steps(ctx, r, o, profiles, rep, stderr) {
		if !slices.ContainsFunc(step.parts, o.measures) || step.seal && !o.needsSeal() {
			continue
		}
		if err := step.measure(); err != nil {
			return nil, fmt.Errorf("measuring %s: %w", strings.Join(step.parts, ", "), err)
		}
	}
	return rep, nil
}

// step is one of the measurements, made when any of its parts is asked for.
type step struct {
	parts   []string
	seal    bool // whether it is of etcdseal alone
	measure func() error
}

func steps(ctx context.Context, r *rig.Rig, o options, profiles profiles, rep *report.Report, stderr io.Writer) []step {
	var targets []*rig.Target
	// start starts the targets when they are first needed: they are shared by the workloads.
	start := func() (err error) {
		if targets == nil {
			targets, err = r.Targets(ctx, o.targets)
		}
		return err
	}
	var out []step
	cfg := turns.Config{Rounds: o.rounds, Turn: o.duration, RateTurn: o.rateDuration, Profile: profiles.take(), Stderr: stderr}
	for _, w := range workload.All {
		out = append(out, step{parts: []string{w.Short}, measure: func() error {
			if err := start(); err != nil {
				return err
			}
			return turns.Measure(ctx, r, targets, w, cfg, rep)
		}})
	}
	return append(out,
		step{parts: []string{partWire}, measure: func() error { return wire.Measure(ctx, r, o.targets, onTheWire(), rep, stderr) }},
		step{parts: []string{partFanout}, measure: func() error {
			if err := start(); err != nil {
				return err
			}
			return fanout.Measure(ctx, r, targets, fanout.Config{Watches: o.fanout, Rounds: fanoutRounds, Turn: fanoutTurn, Stderr: stderr}, rep)
		}},
		step{parts: []string{partStorm}, measure: func() error {
			if err := start(); err != nil {
				return err
			}
			return storm.Measure(ctx, targets, storm.Config{Clients: o.clients, Rounds: stormRounds, Stderr: stderr}, rep)
		}},
		step{parts: []string{partWatches}, seal: true, measure: func() error { return idle.Watches(ctx, r, o.watches, rep, stderr) }},
		step{parts: []string{partPairs}, seal: true, measure: func() error {
			return errors.Join(idle.Pairs(ctx, r, o.pairs, false, rep, stderr), idle.Pairs(ctx, r, o.pairs, true, rep, stderr))
		}},
		step{parts: []string{partStart}, seal: true, measure: func() error { return idle.Starts(ctx, r, o.starts, rep, stderr) }},
		step{parts: []string{partCold}, seal: true, measure: func() error { return keys.ColdStart(ctx, r, o.cold-o.cold%keys.ColdDEKs, rep, stderr) }},
		step{parts: []string{partRotate}, seal: true, measure: func() error { return keys.Rotation(ctx, r, o.rotated-o.rotated%keys.RotatedDEKs, rep, stderr) }},
		step{parts: []string{partSteady}, seal: true, measure: func() error { return keys.Steady(ctx, r, o.steady, rep, stderr) }},
		step{parts: []string{partKube, partKubeCold}, seal: true, measure: func() error { return measureKube(ctx, r, o, rep, stderr) }},
	)
}

// onTheWire are the workloads whose bytes are counted: each kind of call once.
func onTheWire() []workload.Workload {
	return slices.DeleteFunc(slices.Clone(workload.All), func(w workload.Workload) bool {
		return !slices.Contains([]string{workload.Get, workload.Put, workload.Txn, workload.List}, w.Name)
	})
}
