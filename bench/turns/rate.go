package turns

import (
	"context"
	"fmt"
	"slices"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/workload"
)

// halfLoad is the share of what direct etcd can do at which latencies are measured.
const halfLoad = 0.5

// paced is one target's latencies.
type paced struct {
	all      *load.Histogram // of every round
	late     *load.Histogram // how late calls began
	p50, p99 []float64       // microseconds, by round
}

// measureRate has every target answer calls at one rate, half of what etcd answers when it is asked as often as possible.
func measureRate(ctx context.Context, r *rig.Rig, all []*contestant, w workload.Workload, cfg Config, saturated []sample, rep *report.Report) error {
	direct := slices.IndexFunc(all, func(c *contestant) bool { return c.Name == rig.Direct })
	if direct < 0 {
		return nil // without it there is no rate to speak of
	}
	rate := halfLoad * report.SpreadOf(saturated[direct].perSecond).Median
	fmt.Fprintf(cfg.Stderr, "measuring latencies of %s at %.0f calls a second\n", w.Name, rate)
	out := make([]paced, len(all))
	for i := range out {
		out[i] = paced{all: load.NewHistogram(), late: load.NewHistogram()}
	}
	err := inTurns(ctx, r, len(all), cfg.Rounds, func(round, n int) error {
		all[n].prepared.Restart()
		result, err := all[n].pool.RunAt(ctx, all[n].prepared.Call, load.Pace{PerSecond: rate, Duration: cfg.RateTurn})
		if err != nil {
			return fmt.Errorf("taking turn of %s at a fixed rate: %w", all[n].Name, err)
		}
		if round < 0 {
			return nil
		}
		p := &out[n]
		p.all.Add(result.Latency)
		p.late.Add(result.Late)
		p.p50, p.p99 = append(p.p50, result.Latency.Micros(50)), append(p.p99, result.Latency.Micros(99))
		return nil
	})
	if err != nil {
		return err
	}
	addRate(rep, w, all, out, rate)
	return nil
}
