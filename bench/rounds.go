package main

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// sample is one target's measurements over the rounds; the i-th element is of the i-th round.
type sample struct {
	callsPerSecond []float64
	cpuPerCall     []float64 // microseconds of processor time of what stands in between; empty for direct
}

// rounds lets the targets take turns: o.rounds rounds that count after one that warms up. The order moves on by one from round to round, and
// etcd is compacted between rounds, so that no target always works on the larger history.
func rounds(ctx context.Context, r *rig, o options, targets []*target, part string) ([]sample, error) {
	samples := make([]sample, len(targets))
	for round := range o.rounds + 1 {
		for i := range targets {
			n := (i + round) % len(targets)
			calls, cpu, err := turn(ctx, targets[n], part, o.duration)
			if err != nil {
				return nil, err
			}
			if round == 0 {
				continue
			}
			samples[n].callsPerSecond = append(samples[n].callsPerSecond, calls)
			if targets[n].process != nil {
				samples[n].cpuPerCall = append(samples[n].cpuPerCall, cpu)
			}
		}
		if err := compact(ctx, r.direct); err != nil {
			return nil, err
		}
	}
	return samples, nil
}

// turn is one target's part of one round.
func turn(ctx context.Context, t *target, part string, d time.Duration) (callsPerSecond, cpuPerCall float64, err error) {
	before, err := t.cpu()
	if err != nil {
		return 0, 0, err
	}
	result, err := t.pool.Run(ctx, t.work[part], d)
	if err != nil {
		return 0, 0, fmt.Errorf("taking turn of %s: %w", t.name, err)
	}
	after, err := t.cpu()
	if err != nil {
		return 0, 0, err
	}
	calls := float64(result.Calls)
	return calls / result.Elapsed.Seconds(), float64((after - before).Nanoseconds()) / 1000 / calls, nil
}

func (t *target) cpu() (time.Duration, error) {
	if t.process == nil {
		return 0, nil
	}
	if err := t.process.Err(); err != nil {
		return 0, err
	}
	return t.process.CPU()
}

// compact drops etcd's history and waits until it is gone from the disk.
func compact(ctx context.Context, direct *grpc.ClientConn) error {
	kv := pb.NewKVClient(direct)
	now, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("bench")})
	if err != nil {
		return fmt.Errorf("reading revision: %w", err)
	}
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("bench")}); err != nil { // so that there is something to compact in rounds of reads
		return fmt.Errorf("writing a key: %w", err)
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: now.Header.Revision, Physical: true}); err != nil {
		return fmt.Errorf("compacting etcd: %w", err)
	}
	return nil
}
