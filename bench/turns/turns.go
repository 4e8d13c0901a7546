// Package turns compares targets: they take turns in short rounds, in changing order, and ratios and differences are taken within a round, so that a
// machine that gets slower or faster in between does not count.
package turns

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/etcdseal/etcdseal/bench/child"
	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/workload"
)

// Connections is how many a client has to each target.
const Connections = 4

// Config says how long to measure.
type Config struct {
	Rounds int           // that count, after one that does not
	Turn   time.Duration // of one target in a round
	// RateTurn is the length of a turn at a fixed rate. Zero leaves the latencies out.
	RateTurn time.Duration
	// Profile is called for a profile of a target's process during a run of its own, if it is not nil.
	Profile func(ctx context.Context, t *rig.Target, workload string, run func() error) error
	Stderr  io.Writer
}

// contestant is a target that takes part in one workload.
type contestant struct {
	*rig.Target
	pool     *load.Pool
	prepared *workload.Prepared
}

// Measure has the targets take turns in one workload and adds what it found out to the report. That clients get what was written, and that etcd holds
// envelopes exactly when it should, is checked before and after.
func Measure(ctx context.Context, r *rig.Rig, targets []*rig.Target, w workload.Workload, cfg Config, rep *report.Report) (err error) {
	fmt.Fprintf(cfg.Stderr, "measuring %s\n", w.Name)
	var all []*contestant
	defer func() {
		for _, c := range all {
			c.pool.Close()
		}
	}()
	for i, t := range targets {
		if !w.For(t.Name) {
			continue
		}
		c := &contestant{Target: t}
		if c.pool, err = load.Dial(t.Address, Connections, t.Dial()...); err != nil {
			return err
		}
		all = append(all, c)
		if c.prepared, err = w.Prepare(ctx, t, c.pool.Conn(0), t.Prefix(i)+w.Short+"/"); err != nil {
			return err
		}
	}
	if err := checkAll(ctx, r, all, nil); err != nil {
		return err
	}
	saturated, err := saturate(ctx, r, all, w, cfg)
	if err != nil {
		return err
	}
	addSaturated(rep, w, all, saturated)
	if err := profile(ctx, all, w, cfg); err != nil {
		return err
	}
	if w.AtRate && cfg.RateTurn > 0 {
		if err := measureRate(ctx, r, all, w, cfg, saturated, rep); err != nil {
			return err
		}
	}
	return checkAll(ctx, r, all, rep)
}

// checkAll checks every contestant; the bytes that etcd holds beyond a value's own go to the report if there is one.
func checkAll(ctx context.Context, r *rig.Rig, all []*contestant, rep *report.Report) error {
	for _, c := range all {
		overhead, err := c.prepared.Check(ctx, c.pool.Conn(0), r.Direct)
		if err != nil {
			return fmt.Errorf("checking %s: %w", c.Name, err)
		}
		if rep != nil && c.Sealed && !rig.IsEarlier(c.Name) {
			addOverhead(rep, overhead)
		}
	}
	return nil
}

// sample is one target's measurements over the rounds; the i-th element is of the i-th round.
type sample struct {
	perSecond []float64
	cpu       []float64 // microseconds of processor time of what stands in between, per call; empty where nothing does
	etcd      []float64 // the same of etcd
	peak      []float64 // bytes that were resident at once in what stands in between
}

// inTurns calls turn once for each contestant in each round, the first of which (number -1) warms up. The order moves on by one from round to round, every
// second round goes backwards, so that nobody always comes after the same, and etcd is compacted between rounds.
func inTurns(ctx context.Context, r *rig.Rig, contestants, rounds int, turn func(round, n int) error) error {
	for round := -1; round < rounds; round++ {
		for i := range contestants {
			if round%2 == 0 {
				i = contestants - 1 - i
			}
			if err := turn(round, (i+round+1)%contestants); err != nil {
				return err
			}
		}
		if err := r.Compact(ctx); err != nil {
			return err
		}
	}
	return nil
}

// saturate makes as many calls as answers allow.
func saturate(ctx context.Context, r *rig.Rig, all []*contestant, w workload.Workload, cfg Config) ([]sample, error) {
	samples := make([]sample, len(all))
	err := inTurns(ctx, r, len(all), cfg.Rounds, func(round, n int) error {
		c, s := all[n], &samples[n]
		if c.Process != nil {
			if err := c.Process.ResetPeak(); err != nil {
				return err
			}
		}
		before, err := usageOf(c.Process, r.Etcd)
		if err != nil {
			return err
		}
		c.prepared.Restart()
		result, err := c.pool.Run(ctx, c.prepared.Call, w.InFlight, cfg.Turn)
		if err != nil {
			return fmt.Errorf("taking turn of %s: %w", c.Name, err)
		}
		after, err := usageOf(c.Process, r.Etcd)
		if err != nil || round < 0 {
			return err
		}
		perCall := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(result.Calls) }
		s.perSecond = append(s.perSecond, float64(result.Calls)/result.Elapsed.Seconds())
		s.etcd = append(s.etcd, perCall(after.etcd-before.etcd))
		if c.Process == nil {
			return nil
		}
		s.cpu = append(s.cpu, perCall(after.between-before.between))
		peak, err := c.Process.PeakRSS()
		s.peak = append(s.peak, float64(peak))
		return err
	})
	return samples, err
}

// usage is processor time.
type usage struct{ between, etcd time.Duration }

// usageOf reads the processor time of both.
func usageOf(between, etcd *child.Process) (u usage, err error) {
	if u.etcd, err = etcd.CPU(); err != nil || between == nil {
		return u, err
	}
	if err := between.Err(); err != nil {
		return u, err
	}
	u.between, err = between.CPU()
	return u, err
}

// profile has each process in between make one more run of which it writes a profile, if that was asked for.
func profile(ctx context.Context, all []*contestant, w workload.Workload, cfg Config) error {
	if cfg.Profile == nil {
		return nil
	}
	for _, c := range all {
		if !rig.IsSeal(c.Name) || rig.IsEarlier(c.Name) {
			continue
		}
		if err := cfg.Profile(ctx, c.Target, w.Short, func() error {
			c.prepared.Restart()
			_, err := c.pool.Run(ctx, c.prepared.Call, w.InFlight, profileTime)
			return err
		}); err != nil {
			return fmt.Errorf("profiling %s: %w", c.Name, err)
		}
	}
	return nil
}

// profileTime is long enough for some hundred samples of a profile.
const profileTime = 3 * time.Second
