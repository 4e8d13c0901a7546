package turns

import (
	"context"
	"fmt"
	"time"

	"github.com/etcdseal/etcdseal/bench/child"
	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/workload"
)

// The shares of what targets answer when saturated at which latencies are measured.
//
// A call that comes alone takes three to five times the processor time of one among many, which share wake-ups and system calls. So at an eighth of its
// saturated rate direct etcd and its client already keep about half of two processors busy; at half of that rate there is a queue for the processors
// and nothing else to be seen. And a target that cannot keep up shows its queue alone.
const (
	shareOfDirect  = 0.125
	shareOfSlowest = 0.25
)

// paced is one target's latencies.
type paced struct {
	rate     float64         // calls that were to begin each second
	all      *load.Histogram // of every round
	late     *load.Histogram // how late calls began
	p50, p99 []float64       // microseconds, by round
	client   []float64       // microseconds of processor time of the load generator per call, by round
}

// rateFor is at what rate the targets of one kind of transport are compared; false without direct etcd by that transport.
func rateFor(all []*contestant, saturated []sample, secured bool) (rate float64, ok bool) {
	slowest, direct := 0.0, 0.0
	for i, c := range all {
		if rig.Secured(c.Name) != secured {
			continue
		}
		reached := report.SpreadOf(saturated[i].perSecond).Median
		if name, _ := rig.Baselines(c.Name); name == c.Name {
			direct = reached
		}
		if slowest == 0 || reached < slowest {
			slowest = reached
		}
	}
	return min(shareOfDirect*direct, shareOfSlowest*slowest), direct > 0
}

// measureRate has targets that are compared with each other answer calls at one rate, as rateFor says.
func measureRate(ctx context.Context, r *rig.Rig, all []*contestant, w workload.Workload, cfg Config, saturated []sample, rep *report.Report) error {
	var some []*contestant
	var out []paced
	for _, secured := range []bool{false, true} {
		rate, ok := rateFor(all, saturated, secured)
		if !ok {
			continue // there is nothing to compare with
		}
		fmt.Fprintf(cfg.Stderr, "measuring latencies of %s at %.0f calls a second (TLS: %t)\n", w.Name, rate, secured)
		for _, c := range all {
			if rig.Secured(c.Name) == secured {
				some, out = append(some, c), append(out, paced{rate: rate, all: load.NewHistogram(), late: load.NewHistogram()})
			}
		}
	}
	if len(some) == 0 {
		return nil
	}
	err := inTurns(ctx, r, len(some), cfg.Rounds, func(round, n int) error {
		return out[n].turn(ctx, some[n], cfg.RateTurn, round >= 0)
	})
	if err != nil {
		return err
	}
	addRate(rep, w, some, out)
	return nil
}

// turn is one target's in a round, which counts or warms up.
func (p *paced) turn(ctx context.Context, c *contestant, d time.Duration, counts bool) error {
	defer load.HoldGarbage()()
	c.prepared.Restart()
	before, err := child.OwnCPU()
	if err != nil {
		return err
	}
	result, err := c.pool.RunAt(ctx, c.prepared.Call, load.Pace{PerSecond: p.rate, Duration: d})
	if err != nil {
		return fmt.Errorf("taking turn of %s at a fixed rate: %w", c.Name, err)
	}
	after, err := child.OwnCPU()
	if err != nil || !counts {
		return err
	}
	p.all.Add(result.Latency)
	p.late.Add(result.Late)
	p.p50, p.p99 = append(p.p50, result.Latency.Micros(50)), append(p.p99, result.Latency.Micros(99))
	p.client = append(p.client, float64((after-before).Nanoseconds())/1000/float64(result.Latency.Count()))
	return nil
}
