// Package storm has many clients connect at the same moment, as after the restart of whatever they were connected to.
package storm

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

const (
	valueSize = 1 << 10
	// patience is how long a client waits for its answer before it counts as failed.
	patience = 20 * time.Second
	// firstNumber is that of the first target's prefix, apart from those of other measurements.
	firstNumber = 85
)

// Config says how much to measure.
type Config struct {
	Clients int
	Rounds  int // that count, after one that does not
	Stderr  io.Writer
}

// result is one storm.
type result struct {
	took   time.Duration // until every client had its answer or gave up
	failed int
	cpu    time.Duration // of what stands in between
	peak   int64         // bytes that were resident at once in it
}

// Measure has the targets take turns in being stormed. Each client opens a connection of its own, with a TLS handshake where there is one, and reads a
// value. A client that fails is a figure that is missed, not an error: to refuse some is what a target may do.
func Measure(ctx context.Context, targets []*rig.Target, cfg Config, rep *report.Report) error {
	fmt.Fprintf(cfg.Stderr, "measuring %d clients that connect at once\n", cfg.Clients)
	results := make([][]result, len(targets))
	for i, t := range targets {
		if err := put(ctx, t, key(t, i)); err != nil {
			return fmt.Errorf("preparing %s: %w", t.Name, err)
		}
	}
	for round := range cfg.Rounds + 1 {
		for i := range targets {
			n := (i + round) % len(targets)
			r, err := storm(ctx, targets[n], key(targets[n], n), cfg.Clients)
			if err != nil {
				return fmt.Errorf("storming %s: %w", targets[n].Name, err)
			}
			if round > 0 {
				results[n] = append(results[n], r)
			}
		}
	}
	name, failed, seals := fmt.Sprintf("%d clients connect at once", cfg.Clients), 0, 0
	for i, t := range targets {
		samples := func(of func(result) float64) []float64 {
			out := make([]float64, len(results[i]))
			for j, r := range results[i] {
				out[j] = of(r)
			}
			return out
		}
		failures := samples(func(r result) float64 { return float64(r.failed) })
		rep.Add(name, t.Name, report.Sampled("all answered", "ms", samples(func(r result) float64 { return float64(r.took.Microseconds()) / 1000 })),
			report.Sampled("failed", "", failures))
		if t.Process != nil {
			rep.Add(name, t.Name, report.Sampled("CPU/client", "us", samples(func(r result) float64 { return float64(r.cpu.Nanoseconds()) / 1000 / float64(cfg.Clients) })),
				report.Sampled("peak RSS", "B", samples(func(r result) float64 { return float64(r.peak) })))
		}
		if rig.IsSeal(t.Name) && !rig.IsEarlier(t.Name) {
			seals++
			failed += int(report.SpreadOf(failures).Max)
		}
	}
	if seals > 0 {
		rep.AddFigure(name+": failed through etcdseal", float64(failed), "", report.AtMost, 0)
	}
	return nil
}

func key(t *rig.Target, i int) []byte { return []byte(t.Prefix(firstNumber+i) + "storm") }

func put(ctx context.Context, t *rig.Target, key []byte) error {
	conn, err := grpc.NewClient(t.Address, t.Dial()...)
	if err != nil {
		return fmt.Errorf("making client: %w", err)
	}
	defer conn.Close()
	if _, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: key, Value: make([]byte, valueSize)}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("writing value: %w", err)
	}
	return nil
}

// storm has all clients begin at once.
func storm(ctx context.Context, t *rig.Target, key []byte, clients int) (r result, err error) {
	before, err := cpu(t)
	if err != nil {
		return r, err
	}
	if t.Process != nil {
		if err := t.Process.ResetPeak(); err != nil {
			return r, err
		}
	}
	all, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var failed atomic.Int64
	var clientsDone sync.WaitGroup
	conns := make([]*grpc.ClientConn, clients)
	for i := range conns {
		if conns[i], err = grpc.NewClient(t.Address, t.Dial()...); err != nil {
			return r, fmt.Errorf("making client: %w", err)
		}
		defer conns[i].Close()
	}
	start := time.Now()
	for _, conn := range conns {
		clientsDone.Go(func() {
			got, err := pb.NewKVClient(conn).Range(all, &pb.RangeRequest{Key: key}, grpc.WaitForReady(true))
			if err != nil || len(got.Kvs) != 1 || len(got.Kvs[0].Value) != valueSize {
				failed.Add(1)
			}
		})
	}
	clientsDone.Wait()
	r.took, r.failed = time.Since(start), int(failed.Load())
	if err := ctx.Err(); err != nil {
		return r, err
	}
	after, err := cpu(t)
	if err != nil {
		return r, err
	}
	r.cpu = after - before
	if t.Process != nil {
		r.peak, err = t.Process.PeakRSS()
	}
	return r, err
}

func cpu(t *rig.Target) (time.Duration, error) {
	if t.Process == nil {
		return 0, nil
	}
	if err := t.Process.Err(); err != nil {
		return 0, err
	}
	return t.Process.CPU()
}
