package fanout

import (
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/bench/benchtest"
	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

func TestCrowd(t *testing.T) {
	target, conn := benchtest.Etcd(t)
	ctx := t.Context()
	c, err := newCrowd(ctx, target, "/watched", 20)
	if c != nil {
		t.Cleanup(c.close) // after the test's context
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h, err := c.turn(ctx, 3)
		if err != nil {
			t.Fatal(err)
		}
		if h.Count() != 60 || h.Percentile(100) <= 0 {
			t.Errorf("%d events, the last after %v, want 3 of each of 20 watches", h.Count(), h.Percentile(100))
		}
	}
	if _, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: c.key, Value: []byte("short")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.turn(ctx, 100); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("a value that is not what was put gave %v", err)
	}
}

func TestFigure(t *testing.T) {
	rep, all := &report.Report{}, []*crowd{{target: &rig.Target{Name: rig.Direct}}, {target: &rig.Target{Name: rig.Sealing}}}
	add(rep, all, []*load.Histogram{load.NewHistogram(), load.NewHistogram()}, [][]float64{{1000, 2000}, {1100, 2600}})
	if f := rep.Figures[0]; len(rep.Figures) != 1 || f.Value < 1.199 || f.Value > 1.201 || f.Limit != 1.2 {
		t.Errorf("figures are %+v, want one of 1.2", rep.Figures)
	}
}
