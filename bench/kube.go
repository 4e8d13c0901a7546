package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/bench/kube"
	"github.com/etcdseal/etcdseal/bench/plot"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// The rounds of calls: a kube-apiserver's are a hundred times as long as etcd's, so that it takes more time to see a difference.
const (
	kubeRounds = 7
	kubeTurn   = 500 * time.Millisecond
)

// buildAhead builds what measureKube needs while something is measured that other work does not disturb, and returns what waits for it. measureKube says
// what went wrong.
func buildAhead(ctx context.Context, o options, stderr io.Writer) (wait func()) {
	var built sync.WaitGroup
	if o.measures(partKube) || o.measures(partKubeCold) {
		built.Go(func() { _, _, _ = o.build.MakeKubernetes(ctx, o.apiServer, stderr) })
	}
	return built.Wait
}

// measureKube measures at the level of Kubernetes, with processes of its own: calls, cold starts, or both.
func measureKube(ctx context.Context, r *rig.Rig, o options, rep *report.Report, stderr io.Writer) error {
	server, plugin, err := o.build.MakeKubernetes(ctx, o.apiServer, stderr)
	if err != nil {
		return err
	}
	cfg := kube.Config{
		APIServer: server, Etcd: r.Binaries.Etcd, Etcdseal: r.Binaries.Etcdseal, Plugin: plugin,
		Dir: filepath.Join(r.Dir, "kube"), Calls: o.measures(partKube), Rounds: kubeRounds, Turn: kubeTurn, Progress: stderr,
	}
	if o.measures(partKubeCold) {
		cfg.Cold, cfg.Starts = o.secrets, o.kubeStarts
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("making scratch directory: %w", err)
	}
	found, err := kube.Run(ctx, cfg)
	if found != nil { // with an error it is what was measured before
		rep.Merge(found)
	}
	return err
}

// kubeComparisons are the plots of that level.
func kubeComparisons() []plot.Comparison {
	return []plot.Comparison{
		{Name: "kube-throughput", Title: "Secrets: calls a second over kube-apiserver without encryption", Y: "times kube-apiserver", Metric: kube.MetricOverAlone, Targets: kube.Sides, Line: 1},
		{Name: "kube-coldstart", Title: "Cold start until all secrets can be listed, over kube-apiserver without encryption", Y: "times kube-apiserver", Metric: kube.MetricStart, Targets: kube.Sides, Line: 1},
	}
}

// kubePreface explains what is measured at that level.
const kubePreface = `At the level of Kubernetes the client speaks to a kube-apiserver, each with an etcd of its own:

- **kube-apiserver**: without encryption.
- **with KMS v2**: kube-apiserver encrypts secrets itself, with a plugin process that has a local AES-256 key.
- **through etcdseal**: kube-apiserver's etcd is an etcdseal with a local KEK, on a unix socket as the plugin is. **through etcdseal, TLS**: the same on TCP with TLS.

All legs to etcd have TLS. A get has no resource version and a list an exact one, so that both are answered from etcd, which is checked by etcd's counters; lists are pages of 500.
The watch cache is on, so what is written is read back by a watch. Those that are not on turn are stopped (SIGSTOP), and get time to catch up before theirs. *CPU/call* is that of
kube-apiserver, etcd and what is between. A *cold start* is from the start of kube-apiserver until it is ready, and until it has given out the first complete list of secrets from its cache.

`
