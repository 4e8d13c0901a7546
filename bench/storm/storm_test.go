package storm

import (
	"context"
	"io"
	"testing"

	"github.com/etcdseal/etcdseal/bench/benchtest"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

func TestStorm(t *testing.T) {
	target, _ := benchtest.Etcd(t)
	rep := &report.Report{}
	if err := Measure(t.Context(), []*rig.Target{target}, Config{Clients: 20, Rounds: 2, Stderr: io.Discard}, rep); err != nil {
		t.Fatal(err)
	}
	if m, ok := rep.Metric("20 clients connect at once", rig.Direct, "failed"); !ok || m.Max != 0 {
		t.Errorf("failed clients: %+v, %t, want none", m, ok)
	}
	if m, _ := rep.Metric("20 clients connect at once", rig.Direct, "all answered"); m.Min <= 0 {
		t.Errorf("all were answered after %+v", m)
	}
	r, err := storm(t.Context(), target, []byte("absent"), 5)
	if err != nil || r.failed != 5 {
		t.Errorf("%d of 5 clients failed, %v, though there is no value", r.failed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := storm(ctx, target, []byte("absent"), 5); err == nil {
		t.Error("an interrupted storm has a result")
	}
}
