package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/bench/child"
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

// measure does what the options ask and always leaves no process and no file behind but the binaries, profiles and the report. With an error it
// returns the report of what was measured before, or nil if that is nothing.
func measure(ctx context.Context, o options, stderr io.Writer) (rep *report.Report, err error) {
	begin := time.Now()
	machine, err := report.ReadMachine(begin) // before the builds, which are load
	if err != nil {
		return nil, err
	}
	bin, err := o.build.Make(ctx, stderr)
	if err != nil {
		return nil, err
	}
	versions, err := versionsOf(ctx, bin, o)
	if err != nil {
		return nil, err
	}
	machine.Versions = append(machine.Versions, versions...)
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
			rep.Set("took", fmt.Sprintf("%v for %s", time.Since(begin).Round(time.Second), strings.Join(o.parts, ", ")))
		}
	}()
	r, err := rig.New(ctx, rig.Config{Binaries: bin, Dir: o.dir, Seal: o.needsSeal(), Profiles: profiles.dir, Stderr: stderr})
	if r != nil {
		defer func() { err = errors.Join(err, r.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	found := &report.Report{Machine: machine}
	if err := describe(found, o); err != nil {
		return nil, err
	}
	if err := take(steps(ctx, r, o, profiles, found, stderr), o); err != nil {
		if found.Empty() {
			return nil, err
		}
		found.Set(settingEarly, reason(ctx, err, r.Dir))
		return found, err
	}
	return found, nil
}

// settingEarly is the setting of a report which does not have all that it was to have.
const settingEarly = "ended early"

// describe says how it is measured.
func describe(rep *report.Report, o options) error {
	rep.Set("etcd", "one member on the same machine, without fsync")
	rep.Set("rounds", fmt.Sprintf("%d, in which the targets take turns of %s in changing order; ratios are of one round, shown are medians (least..most)", o.rounds, o.duration))
	rep.Set("clients", fmt.Sprintf("one process with %d connections, on the same machine", turns.Connections))
	if !o.needsSeal() {
		return nil
	}
	shown, err := child.ShownUndumpable()
	if err != nil {
		return err
	}
	if !shown.PSS {
		rep.Set("PSS of etcdseal", "is its RSS, in which shared pages count in full: the kernel shows the PSS only to who may trace any process, as root may")
	}
	if !shown.Peak {
		rep.Set("peak RSS of etcdseal", "is since its start, not of a turn: the kernel lets only root reset it")
	}
	return nil
}

// step is one of the measurements, made when any of its parts is measured.
type step struct {
	parts   []string
	measure func() error
}

// take makes the measurements one after the other, up to the first that fails.
func take(all []step, o options) error {
	for _, s := range all {
		if !slices.ContainsFunc(s.parts, o.measures) {
			continue
		}
		if err := s.measure(); err != nil {
			return fmt.Errorf("measuring %s: %w", strings.Join(s.parts, ", "), err)
		}
	}
	return nil
}

// reason is why a run ended early, for a report: a single line without the machine's paths. Whatever fails after the end of ctx fails
// because of it, so that of the error itself only what was being measured counts.
func reason(ctx context.Context, err error, scratch string) string {
	if cause := context.Cause(ctx); cause != nil {
		measuring, _, _ := strings.Cut(err.Error(), ": ")
		return measuring + ": " + cause.Error()
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.ReplaceAll(line, scratch+string(filepath.Separator), "")
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
		step{parts: []string{partWatches}, measure: func() error { return idle.Watches(ctx, r, o.watches, rep, stderr) }},
		step{parts: []string{partPairs}, measure: func() error {
			return errors.Join(idle.Pairs(ctx, r, o.pairs, false, rep, stderr), idle.Pairs(ctx, r, o.pairs, true, rep, stderr))
		}},
		step{parts: []string{partStart}, measure: func() error { return idle.Starts(ctx, r, o.starts, rep, stderr) }},
		step{parts: []string{partCold}, measure: func() error { return keys.ColdStart(ctx, r, o.cold-o.cold%keys.ColdDEKs, rep, stderr) }},
		step{parts: []string{partRotate}, measure: func() error { return keys.Rotation(ctx, r, o.rotated-o.rotated%keys.RotatedDEKs, rep, stderr) }},
		step{parts: []string{partSteady}, measure: func() error {
			defer buildAhead(ctx, o, stderr)()
			return keys.Steady(ctx, r, o.steady, rep, stderr)
		}},
		step{parts: []string{partKube, partKubeCold}, measure: func() error { return measureKube(ctx, r, o, rep, stderr) }},
	)
}

// onTheWire are the workloads whose bytes are counted: each kind of call once.
func onTheWire() []workload.Workload {
	return slices.DeleteFunc(slices.Clone(workload.All), func(w workload.Workload) bool {
		return !slices.Contains([]string{workload.Get, workload.Put, workload.Txn, workload.List}, w.Name)
	})
}
