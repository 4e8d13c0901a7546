package turns

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/workload"
)

func contestants(names ...string) []*contestant {
	var all []*contestant
	for _, n := range names {
		all = append(all, &contestant{Target: &rig.Target{Name: n}})
	}
	return all
}

// TestSaturatedFigures feeds samples in which every second round is twice as slow for all: no ratio must notice.
func TestSaturatedFigures(t *testing.T) {
	rep := &report.Report{}
	all := contestants(rig.Direct, rig.TCPCopy, rig.Sealing, rig.NoRule, rig.GRPCProxy)
	addSaturated(rep, workload.Workload{Name: workload.Get}, all, []sample{
		{perSecond: []float64{1000, 500}, etcd: []float64{5, 10}},
		{perSecond: []float64{900, 450}, cpu: []float64{10, 20}, etcd: []float64{5, 10}, peak: []float64{1, 1}},
		{perSecond: []float64{800, 400}, cpu: []float64{17, 34}, etcd: []float64{5, 10}, peak: []float64{1, 1}},
		{perSecond: []float64{850, 425}, cpu: []float64{16, 32}, etcd: []float64{5, 10}, peak: []float64{1, 1}},
		{perSecond: []float64{400, 200}, cpu: []float64{70, 140}, etcd: []float64{5, 10}, peak: []float64{1, 1}},
	})
	want := []report.Figure{
		{Name: "throughput over direct, get", Value: 0.8, Direction: report.AtLeast, Limit: 0.75, Met: true},
		{Name: "throughput over grpcproxy, get", Value: 2, Direction: report.AtLeast, Limit: 1.5, Met: true},
		{Name: "processor time over TCP copy, get, etcdseal", Value: 1.7, Direction: report.AtMost, Limit: 1.8, Met: true},
		{Name: "processor time over TCP copy, get, etcdseal-norule", Value: 1.6, Direction: report.AtMost, Limit: 1.5},
	}
	if diff := cmp.Diff(want, rep.Figures); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	if m, _ := rep.Metric(workload.Get, rig.Sealing, MetricOverDirect); m.Spread != (report.Spread{Median: 0.8, Min: 0.8, Max: 0.8}) {
		t.Errorf("throughput over direct is %+v, want 0.8 in each round", m)
	}
	if _, ok := rep.Metric(workload.Get, rig.Direct, MetricCPU); ok {
		t.Error("nothing stands before direct etcd, but has processor time")
	}
}

// TestTLSIsComparedWithTLS has no direct etcd without TLS at all.
func TestTLSIsComparedWithTLS(t *testing.T) {
	rep := &report.Report{}
	addSaturated(rep, workload.Workload{Name: workload.Put}, contestants(rig.DirectTLS, rig.SealingTLS), []sample{
		{perSecond: []float64{100}}, {perSecond: []float64{60}, cpu: []float64{1}, peak: []float64{1}},
	})
	if m, ok := rep.Metric(workload.Put, rig.SealingTLS, MetricOverDirect); !ok || m.Median != 0.6 {
		t.Errorf("throughput over direct is %v, %t, want 0.6", m.Median, ok)
	}
	if len(rep.Figures) > 0 {
		t.Errorf("figures are %v, want none without the targets that they are of", rep.Figures)
	}
}

// The slow target takes part with those of its transport alone; without direct etcd there is no rate.
func TestRateFor(t *testing.T) {
	at := func(perSecond float64) sample { return sample{perSecond: []float64{perSecond}} }
	for _, c := range []struct {
		name    string
		targets []string
		samples []sample
		secured bool
		want    float64
		ok      bool
	}{
		{"an eighth of direct", []string{rig.Direct, rig.Sealing, rig.DirectTLS, rig.SealingTLS}, []sample{at(1000), at(700), at(500), at(100)}, false, 125, true},
		{"a quarter of the slowest", []string{rig.Direct, rig.Sealing, rig.GRPCProxy}, []sample{at(1000), at(700), at(400)}, false, 100, true},
		{"with TLS", []string{rig.Direct, rig.Sealing, rig.DirectTLS, rig.SealingTLS}, []sample{at(1000), at(700), at(500), at(100)}, true, 25, true},
		{"without TLS's direct", []string{rig.Direct, rig.SealingTLS}, []sample{at(1000), at(100)}, true, 0, false},
	} {
		if got, ok := rateFor(contestants(c.targets...), c.samples, c.secured); got != c.want || ok != c.ok {
			t.Errorf("%s: %v, %t, want %v, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestRateFigures(t *testing.T) {
	rep := &report.Report{}
	all := contestants(rig.Direct, rig.TCPCopy, rig.Sealing)
	out := []paced{{p50: []float64{100, 200}, p99: []float64{500, 600}}, {p50: []float64{120, 220}, p99: []float64{700, 800}}, {p50: []float64{155, 255}, p99: []float64{950, 1050}}}
	for i := range out {
		out[i].all, out[i].late = load.NewHistogram(), load.NewHistogram()
	}
	addRate(rep, workload.Workload{Name: workload.Get}, all, out)
	want := []report.Figure{
		{Name: "added p50 at half load, get", Value: 55, Unit: "us", Direction: report.AtMost, Limit: 60, Met: true},
		{Name: "added p99 at half load, get (limit: twice the TCP copy's)", Value: 450, Unit: "us", Direction: report.AtMost, Limit: 400},
	}
	if diff := cmp.Diff(want, rep.Figures); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	out[1].p99 = []float64{400, 500}
	rep.Figures = nil
	if addRate(rep, workload.Workload{Name: workload.Get}, all, out); len(rep.Figures) != 2 || rep.Figures[1].Limit != 0 {
		t.Errorf("figures are %v, want a limit of 0 where a copy is faster than nothing", rep.Figures)
	}
	if len(rep.Latencies) != 6 {
		t.Errorf("%d distributions, want 6", len(rep.Latencies))
	}
	if _, ok := rep.Metric("get at half load", rig.Direct, "added p50"); ok {
		t.Error("direct etcd adds something to itself")
	}
}

func TestOverheadIsTheLargest(t *testing.T) {
	rep := &report.Report{}
	for _, n := range []int{48, 49, 48} {
		addOverhead(rep, n)
	}
	if f := rep.Figures[0]; len(rep.Figures) != 1 || f.Value != 49 || f.Met {
		t.Errorf("figures are %+v, want one of 49, missed", rep.Figures)
	}
}
