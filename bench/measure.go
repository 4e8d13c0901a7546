package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
)

// measure does what the options ask and always leaves no process and no file behind but the binaries.
func measure(ctx context.Context, o options, stderr io.Writer) (rep *report, err error) {
	load, err := loadAverage()
	if err != nil {
		return nil, err
	}
	bin, err := prepare(ctx, o, stderr)
	if err != nil {
		return nil, err
	}
	r, err := newRig(ctx, o, bin, stderr)
	if r != nil {
		defer func() { err = errors.Join(err, r.close()) }()
	}
	if err != nil {
		return nil, err
	}
	rep = &report{Cores: runtime.NumCPU(), Go: runtime.Version(), Etcd: etcdVersion(), Rounds: o.rounds, Turn: o.duration.String(), Load: load}
	if slices.ContainsFunc([]string{partGet, partPut, partList}, o.measures) {
		if err := measureTargets(ctx, r, o, rep, stderr); err != nil {
			return nil, err
		}
	}
	if !o.needsSeal() {
		return rep, nil
	}
	if o.measures(partWatches) {
		fmt.Fprintf(stderr, "opening %d watches\n", o.watches)
		if err := measureWatches(ctx, r, o.watches, rep); err != nil {
			return nil, fmt.Errorf("measuring watches: %w", err)
		}
	}
	if o.measures(partPairs) {
		for _, secured := range []bool{false, true} {
			fmt.Fprintf(stderr, "opening %d connections, TLS %t\n", o.pairs, secured)
			if err := measurePairs(ctx, r, o.pairs, secured, rep); err != nil {
				return nil, fmt.Errorf("measuring idle connections: %w", err)
			}
		}
	}
	if o.measures(partStart) {
		fmt.Fprintf(stderr, "starting etcdseal %d times\n", o.starts)
		if err := measureStart(ctx, r, o.starts, rep); err != nil {
			return nil, fmt.Errorf("measuring the start: %w", err)
		}
	}
	if o.measures(partCold) {
		if err := measureColdStart(ctx, r, o.cold-o.cold%coldDEKs, coldDEKs, rep, stderr); err != nil {
			return nil, fmt.Errorf("measuring the cold start: %w", err)
		}
	}
	if o.measures(partRotate) {
		if err := measureRotation(ctx, r, o.rotated-o.rotated%rotatedDEKs, rotatedDEKs, rep, stderr); err != nil {
			return nil, fmt.Errorf("measuring the rotation: %w", err)
		}
	}
	if o.measures(partSteady) {
		if err := measureSteady(ctx, r, o.steady, rep, stderr); err != nil {
			return nil, fmt.Errorf("measuring the steady state: %w", err)
		}
	}
	return rep, nil
}

// loadAverage is the machine's over the last minute.
func loadAverage() (float64, error) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, fmt.Errorf("reading load: %w", err)
	}
	var load float64
	if _, err := fmt.Sscan(string(data), &load); err != nil {
		return 0, fmt.Errorf("parsing load: %w", err)
	}
	return load, nil
}

// measureTargets starts every target, measures each part over all of them, and checks before and after that they do what they are said to.
func measureTargets(ctx context.Context, r *rig, o options, rep *report, stderr io.Writer) error {
	targets, err := newTargets(ctx, r, o.targets)
	defer func() {
		for _, t := range targets {
			t.pool.Close()
		}
	}()
	if err != nil {
		return err
	}
	for _, part := range []string{partGet, partPut, partList} {
		for _, t := range targets {
			overhead, err := t.check(ctx, r.direct)
			if err != nil {
				return err
			}
			if t.sealed {
				rep.addOverhead(overhead)
			}
		}
		if !o.measures(part) {
			continue
		}
		fmt.Fprintf(stderr, "measuring %s\n", part)
		samples, err := rounds(ctx, r, o, targets, part)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", part, err)
		}
		rep.addCalls(part, targets, samples)
	}
	return nil
}

// measureStart takes the time from exec to readiness.
func measureStart(ctx context.Context, r *rig, times int, rep *report) error {
	var samples []float64
	for i := range times {
		s, err := r.startSeal(ctx, fmt.Sprintf("start-%d", i), false)
		if err != nil {
			return err
		}
		if err := s.Stop(); err != nil {
			return err
		}
		samples = append(samples, float64(s.ready.Microseconds())/1000)
	}
	rep.addStart(spreadOf(samples))
	return nil
}
