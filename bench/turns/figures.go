package turns

import (
	"slices"

	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/workload"
)

// The limits of the project, for two processors that everything shares.
const (
	cpuSealing       = 1.8 // times a TCP copy's processor time, of a get or a put
	cpuNoRule        = 1.5
	cpuList          = 1.5
	overDirect       = 0.75 // of etcd's own throughput
	overGRPCProxy    = 1.5
	addedMedian      = 60  // us
	addedTail        = 2.0 // times what a TCP copy adds
	overheadInEtcd   = 48  // bytes
	overheadName     = "bytes in etcd beyond a value's own"
	MetricThroughput = "calls/s"
	MetricOverDirect = "over direct"
	MetricCPU        = "CPU/call"
	MetricOverCopy   = "over TCP copy"
	// MetricOverEarlier compares the processor time with an earlier etcdseal's.
	MetricOverEarlier = "over earlier"
	MetricEtcdCPU     = "etcd CPU/call"
	MetricPeak        = "peak RSS"
)

// base finds what a contestant is compared with.
type base struct {
	all     []*contestant
	samples []sample
}

func (b base) of(name string) (sample, bool) {
	i := slices.IndexFunc(b.all, func(c *contestant) bool { return c.Name == name })
	if i < 0 {
		return sample{}, false
	}
	return b.samples[i], true
}

// addSaturated adds the metrics of one workload, and the figures that have a limit.
func addSaturated(rep *report.Report, w workload.Workload, all []*contestant, samples []sample) {
	b := base{all, samples}
	for i, c := range all {
		s := samples[i]
		add := func(name, unit string, values []float64) { rep.Add(w.Name, c.Name, report.Sampled(name, unit, values)) }
		directName, copyName := rig.Baselines(c.Name)
		add(MetricThroughput, "", s.perSecond)
		if direct, ok := b.of(directName); ok && directName != c.Name {
			add(MetricOverDirect, "", report.Ratios(s.perSecond, direct.perSecond))
		}
		if len(s.cpu) > 0 {
			add(MetricCPU, "us", s.cpu)
			if floor, ok := b.of(copyName); ok && copyName != c.Name {
				add(MetricOverCopy, "", report.Ratios(s.cpu, floor.cpu))
			}
			if earlier, ok := b.of(rig.EarlierOf[c.Name]); ok {
				add(MetricOverEarlier, "", report.Ratios(s.cpu, earlier.cpu))
			}
			add(MetricPeak, "B", s.peak)
		}
		add(MetricEtcdCPU, "us", s.etcd)
	}
	addThroughputFigures(rep, w, b)
	addCPUFigures(rep, w, b)
}

func addCPUFigures(rep *report.Report, w workload.Workload, b base) {
	limits := map[string]map[string]float64{
		workload.Get:  {rig.Sealing: cpuSealing, rig.NoRule: cpuNoRule},
		workload.Put:  {rig.Sealing: cpuSealing, rig.NoRule: cpuNoRule},
		workload.List: {rig.Sealing: cpuList},
	}
	for _, target := range []string{rig.Sealing, rig.NoRule} {
		limit, limited := limits[w.Name][target]
		s, measured := b.of(target)
		if floor, ok := b.of(rig.TCPCopy); ok && measured && limited {
			rep.AddSampled("processor time over TCP copy, "+w.Name+", "+target, report.Ratios(s.cpu, floor.cpu), "", report.AtMost, limit)
		}
	}
}

func addThroughputFigures(rep *report.Report, w workload.Workload, b base) {
	sealing, ok := b.of(rig.Sealing)
	if !ok || w.Name != workload.Get && w.Name != workload.Put {
		return
	}
	for _, c := range []struct {
		over  string
		limit float64
	}{{rig.Direct, overDirect}, {rig.GRPCProxy, overGRPCProxy}} {
		if other, ok := b.of(c.over); ok {
			rep.AddSampled("throughput over "+c.over+", "+w.Name, report.Ratios(sealing.perSecond, other.perSecond), "", report.AtLeast, c.limit)
		}
	}
}

// addRate adds the distributions at a fixed rate, and what each target adds to direct etcd's.
func addRate(rep *report.Report, w workload.Workload, all []*contestant, out []paced) {
	find := func(name string) (paced, bool) {
		i := slices.IndexFunc(all, func(c *contestant) bool { return c.Name == name })
		if i < 0 {
			return paced{}, false
		}
		return out[i], true
	}
	for i, c := range all {
		rep.AddLatency(out[i].all.Latency(w.Name, c.Name, out[i].rate))
		row := w.Name + " at half load"
		rep.Add(row, c.Name, report.Sampled("p50", "us", out[i].p50), report.Sampled("p99", "us", out[i].p99))
		if direct, ok := find(first(rig.Baselines(c.Name))); ok && direct.all != out[i].all {
			rep.Add(row, c.Name, report.Sampled("added p50", "us", differences(out[i].p50, direct.p50)), report.Sampled("added p99", "us", differences(out[i].p99, direct.p99)))
		}
		rep.Add(row, c.Name, report.Single("began late, p50", "us", out[i].late.Micros(50)), report.Sampled("client CPU/call", "us", out[i].client))
	}
	direct, hasDirect := find(rig.Direct)
	floor, hasFloor := find(rig.TCPCopy)
	sealing, hasSealing := find(rig.Sealing)
	if !hasDirect || !hasSealing || w.Name != workload.Get && w.Name != workload.Put {
		return
	}
	rep.AddSampled("added p50 at half load, "+w.Name, differences(sealing.p50, direct.p50), "us", report.AtMost, addedMedian)
	if !hasFloor {
		return
	}
	// A copy that seems to make calls faster shows how much the machine's mood decides.
	added := max(0, report.SpreadOf(differences(floor.p99, direct.p99)).Median)
	rep.AddSampled("added p99 at half load, "+w.Name+" (limit: twice the TCP copy's)", differences(sealing.p99, direct.p99), "us", report.AtMost, addedTail*added)
}

func first(a, _ string) string { return a }

// differences subtracts sample by sample: both were taken in the same round.
func differences(of, from []float64) []float64 {
	out := make([]float64, min(len(of), len(from)))
	for i := range out {
		out[i] = of[i] - from[i]
	}
	return out
}

// addOverhead keeps the largest one.
func addOverhead(rep *report.Report, n int) {
	i := slices.IndexFunc(rep.Figures, func(f report.Figure) bool { return f.Name == overheadName })
	if i < 0 {
		rep.AddFigure(overheadName, float64(n), "B", report.AtMost, overheadInEtcd)
		return
	}
	f := &rep.Figures[i]
	f.Value = max(f.Value, float64(n))
	f.Met = f.Value <= f.Limit
}
