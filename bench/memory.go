package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

const (
	// watchConns is the number of connections that the watches share.
	watchConns = 10
	// baselinePairs are the connections that are there before the idle ones are counted, so that what is made once is not counted.
	baselinePairs = 10
	// settleTimeout bounds the wait for two garbage collections.
	settleTimeout = time.Minute
)

// footprint is what an etcdseal occupies when nothing happens.
type footprint struct {
	PSS    int64 `json:"pss"`    // bytes, as the kernel counts: garbage that the runtime has not returned included
	Heap   int64 `json:"heap"`   // bytes, the lowest seen after a collection
	Stacks int64 `json:"stacks"` // bytes in use by goroutine stacks
}

// settled waits until the process has collected its garbage twice, which also empties its pools, and reads the footprint. Every look at /metrics
// leaves some garbage, so that looking brings the next collection nearer.
func settled(ctx context.Context, s *seal) (footprint, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	first := -1.0
	var f footprint
	for {
		m, err := s.metrics(ctx)
		if err != nil {
			return footprint{}, err
		}
		collections, heap := m["go_gc_duration_seconds_count"], int64(m["go_memstats_heap_alloc_bytes"])
		if first < 0 {
			first = collections
		}
		if collections >= first+2 && (f.Heap == 0 || heap < f.Heap) {
			f.Heap = heap
		}
		if collections >= first+3 {
			f.Stacks = int64(m["go_memstats_stack_inuse_bytes"])
			break
		}
	}
	memory, err := s.Memory()
	f.PSS = memory.PSS
	return f, err
}

// measureWatches opens idle watch streams, each with one watch under the rule.
func measureWatches(ctx context.Context, r *rig, watches int, rep *report) error {
	s, err := r.startSeal(ctx, "watches", false)
	if err != nil {
		return err
	}
	conns, closeAll, err := open(ctx, s.address, nil, watchConns)
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
	each := watches / watchConns
	if err := watch(ctx, conns, each); err != nil {
		return err
	}
	after, err := settled(ctx, s)
	if err != nil {
		return err
	}
	rep.addMemory("idle watch stream", each*watchConns, before, after, 2<<10)
	cancel()
	closeAll()
	return s.Stop()
}

// watch opens n streams on each connection; they stay until ctx ends.
func watch(ctx context.Context, conns []*grpc.ClientConn, n int) error {
	for _, c := range conns {
		for i := range n {
			stream, err := pb.NewWatchClient(c).Watch(ctx)
			if err != nil {
				return fmt.Errorf("opening watch stream: %w", err)
			}
			request := &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "%swatched/%06d", sealedPrefix, i), PrevKv: true}
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}); err != nil {
				return fmt.Errorf("creating watch: %w", err)
			}
			response, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("awaiting watch: %w", err)
			}
			if !response.Created || response.Canceled {
				return fmt.Errorf("creating watch: refused: %s", response.CancelReason)
			}
		}
	}
	return nil
}

// measurePairs opens connections, makes one read and one write of a sealed value on each, and leaves them idle.
func measurePairs(ctx context.Context, r *rig, pairs int, secured bool, rep *report) error {
	name, limit, config := "idle pair, plain", int64(64<<10), (*tls.Config)(nil)
	if secured {
		name, limit, config = "idle pair, TLS", 128<<10, r.pki.client
	}
	s, err := r.startSeal(ctx, fmt.Sprintf("pairs-%t", secured), secured)
	if err != nil {
		return err
	}
	_, closeBaseline, err := open(ctx, s.address, config, baselinePairs)
	defer func() { closeBaseline() }()
	if err != nil {
		return err
	}
	before, err := settled(ctx, s)
	if err != nil {
		return err
	}
	_, closePairs, err := open(ctx, s.address, config, pairs)
	defer func() { closePairs() }()
	if err != nil {
		return err
	}
	after, err := settled(ctx, s)
	if err != nil {
		return err
	}
	rep.addMemory(name, pairs, before, after, limit)
	closePairs()
	closeBaseline()
	return s.Stop()
}

// open dials connections and uses each once. The function that closes them is never nil and may be called again.
func open(ctx context.Context, address string, config *tls.Config, n int) (conns []*grpc.ClientConn, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	value := make([]byte, valueSize)
	for i := range n {
		c, err := grpc.NewClient(address, append(dialOptions(config), grpc.WithIdleTimeout(0))...)
		if err != nil {
			return conns, closeAll, fmt.Errorf("making client: %w", err)
		}
		conns = append(conns, c)
		kv, key := pb.NewKVClient(c), fmt.Appendf(nil, "%sidle/%06d", sealedPrefix, i)
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: value}, grpc.WaitForReady(true)); err != nil {
			return conns, closeAll, fmt.Errorf("writing on connection %d: %w", i, err)
		}
		if _, err := kv.Range(ctx, &pb.RangeRequest{Key: key}); err != nil {
			return conns, closeAll, fmt.Errorf("reading on connection %d: %w", i, err)
		}
	}
	return conns, closeAll, nil
}
