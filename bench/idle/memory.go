// Package idle measures what an etcdseal costs at which nothing happens: the memory of watches and connections that wait, and its start.
package idle

import (
	"context"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/fanout"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

const (
	// WatchConnections is the number of connections that the watches share.
	WatchConnections = 10
	// baselinePairs are the connections that are there before the idle ones are counted, so that what is made once is not counted.
	baselinePairs = 10
	// settleTimeout bounds the wait for garbage collections.
	settleTimeout = time.Minute
	valueSize     = 1 << 10
)

// The limits, in bytes and milliseconds.
const (
	watchLimit    = 2_000 // of each, so that ten thousand take 20 MB
	pairLimit     = 64 << 10
	pairLimitTLS  = 128 << 10
	startLimit    = 1000
	watchWorkload = "idle watches"
	pairWorkload  = "idle connection pairs"
)

// footprint is what an etcdseal occupies when nothing happens.
type footprint struct {
	pss    int64 // bytes, as the kernel counts: garbage that the runtime has not returned included
	heap   int64 // bytes, the lowest seen after a collection
	stacks int64 // bytes in use by goroutine stacks
}

// settled waits until the process has collected its garbage twice, which also empties its pools, and reads the footprint. Every look at /metrics
// leaves some garbage, so that looking brings the next collection nearer.
func settled(ctx context.Context, s *rig.Seal) (footprint, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	first := -1.0
	var f footprint
	for {
		m, err := s.Metrics(ctx)
		if err != nil {
			return footprint{}, err
		}
		collections, heap := m["go_gc_duration_seconds_count"], int64(m["go_memstats_heap_alloc_bytes"])
		if first < 0 {
			first = collections
		}
		if collections >= first+2 && (f.heap == 0 || heap < f.heap) {
			f.heap = heap
		}
		if collections >= first+3 {
			f.stacks = int64(m["go_memstats_stack_inuse_bytes"])
			break
		}
	}
	memory, err := s.Memory()
	f.pss = memory.PSS
	return f, err
}

// add reports what a number of things took, in all and each.
func add(rep *report.Report, workload, target string, count int, before, after footprint) (pss float64) {
	pss = float64(after.pss - before.pss)
	live := float64(after.heap + after.stacks - before.heap - before.stacks)
	rep.Add(workload, target, report.Single("count", "", float64(count)), report.Single("PSS of all", "B", pss), report.Single("PSS each", "B", pss/float64(count)),
		report.Single("heap+stacks each", "B", live/float64(count)), report.Single("PSS of the process", "B", float64(after.pss)))
	return pss
}

// Watches opens idle watch streams, each with one watch under the rule, on ten connections.
func Watches(ctx context.Context, r *rig.Rig, watches int, rep *report.Report, stderr io.Writer) error {
	fmt.Fprintf(stderr, "opening %d watches\n", watches)
	s, err := r.Seal(ctx, "watches", false)
	if err != nil {
		return err
	}
	conns, closeAll, err := open(ctx, s.Address, rig.DialOptions(nil), WatchConnections)
	defer func() { closeAll() }()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := watch(ctx, conns, 1); err != nil {
		return err
	}
	before, err := settled(ctx, s)
	if err != nil {
		return err
	}
	each := watches / WatchConnections
	if err := watch(ctx, conns, each); err != nil {
		return err
	}
	after, err := settled(ctx, s)
	if err != nil {
		return err
	}
	count := each * WatchConnections
	pss := add(rep, watchWorkload, rig.Sealing, count, before, after)
	rep.AddFigure(fmt.Sprintf("memory of %d idle watches on %d connections", count, WatchConnections), pss/1e6, "MB", report.AtMost, float64(count)*watchLimit/1e6)
	cancel()
	closeAll()
	return s.Stop()
}

// watch opens n streams on each connection; they stay until ctx ends.
func watch(ctx context.Context, conns []*grpc.ClientConn, n int) error {
	for _, c := range conns {
		for i := range n {
			if _, err := fanout.Watch(ctx, c, fmt.Appendf(nil, "%swatched/%06d", rig.SealedPrefix, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Pairs opens connections, makes one read and one write of a sealed value on each, and leaves them idle.
func Pairs(ctx context.Context, r *rig.Rig, pairs int, secured bool, rep *report.Report, stderr io.Writer) error {
	name, limit := rig.Sealing, pairLimit
	if secured {
		name, limit = rig.SealingTLS, pairLimitTLS
	}
	fmt.Fprintf(stderr, "opening %d connections to %s\n", pairs, name)
	s, err := r.Seal(ctx, "pairs-"+name, secured)
	if err != nil {
		return err
	}
	dial := rig.DialOptions(r.ClientTLS(secured))
	_, closeBaseline, err := open(ctx, s.Address, dial, baselinePairs)
	defer func() { closeBaseline() }()
	if err != nil {
		return err
	}
	before, err := settled(ctx, s)
	if err != nil {
		return err
	}
	_, closePairs, err := open(ctx, s.Address, dial, pairs)
	defer func() { closePairs() }()
	if err != nil {
		return err
	}
	after, err := settled(ctx, s)
	if err != nil {
		return err
	}
	pss := add(rep, pairWorkload, name, pairs, before, after)
	rep.AddFigure("memory of an idle connection pair, "+name, pss/float64(pairs), "B", report.AtMost, float64(limit))
	closePairs()
	closeBaseline()
	return s.Stop()
}

// open dials connections and uses each once. The function that closes them is never nil and may be called again.
func open(ctx context.Context, address string, dial []grpc.DialOption, n int) (conns []*grpc.ClientConn, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	value := make([]byte, valueSize)
	for i := range n {
		c, err := grpc.NewClient(address, dial...)
		if err != nil {
			return conns, closeAll, fmt.Errorf("making client: %w", err)
		}
		conns = append(conns, c)
		kv, key := pb.NewKVClient(c), fmt.Appendf(nil, "%sidle/%06d", rig.SealedPrefix, i)
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: value}, grpc.WaitForReady(true)); err != nil {
			return conns, closeAll, fmt.Errorf("writing on connection %d: %w", i, err)
		}
		if _, err := kv.Range(ctx, &pb.RangeRequest{Key: key}); err != nil {
			return conns, closeAll, fmt.Errorf("reading on connection %d: %w", i, err)
		}
	}
	return conns, closeAll, nil
}

// Starts takes the time from exec to readiness.
func Starts(ctx context.Context, r *rig.Rig, times int, rep *report.Report, stderr io.Writer) error {
	fmt.Fprintf(stderr, "starting etcdseal %d times\n", times)
	var samples []float64
	for i := range times {
		s, err := r.Seal(ctx, fmt.Sprintf("start-%d", i), false)
		if err != nil {
			return err
		}
		if err := s.Stop(); err != nil {
			return err
		}
		samples = append(samples, float64(s.Ready.Microseconds())/1000)
	}
	rep.Add("start", rig.Sealing, report.Sampled("ready after", "ms", samples))
	rep.AddFigure("start to ready", report.SpreadOf(samples).Median, "ms", report.AtMost, startLimit)
	return nil
}
