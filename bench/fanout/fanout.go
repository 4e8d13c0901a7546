// Package fanout measures how long an event takes from the moment at which its put was to begin until each of many watches has it.
package fanout

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

const (
	// Name is that of the workload in the report.
	Name = "watch fan-out"
	// connections is the number that the watches share.
	connections = 10
	valueSize   = 1 << 10
	// interval is the time between puts. The events of one are to be delivered before the next, so that delivery is measured and not a queue.
	interval = 200 * time.Millisecond
	// overDirect is the limit of the 99th percentile over direct etcd's.
	overDirect = 1.2
	// firstNumber is that of the first target's prefix, apart from those of other measurements.
	firstNumber = 70
	// patience bounds the wait for the last event of a turn, and for the watches to be there.
	patience = 30 * time.Second
)

// Config says how much to measure.
type Config struct {
	Watches int // over all connections; a multiple of ten
	Rounds  int // that count, after one that does not
	Turn    time.Duration
	Stderr  io.Writer
}

// Measure opens the watches through every target and lets the targets take turns in writing.
func Measure(ctx context.Context, r *rig.Rig, targets []*rig.Target, cfg Config, rep *report.Report) (err error) {
	fmt.Fprintf(cfg.Stderr, "measuring the fan-out to %d watches\n", cfg.Watches)
	ctx, cancel := context.WithCancel(ctx)
	var all []*crowd
	defer func() {
		cancel()
		for _, c := range all {
			c.close()
		}
	}()
	for i, t := range targets {
		c, err := newCrowd(ctx, t, t.Prefix(firstNumber+i)+"watched", cfg.Watches)
		if c != nil {
			all = append(all, c)
		}
		if err != nil {
			return fmt.Errorf("watching through %s: %w", t.Name, err)
		}
	}
	histograms, tails := make([]*load.Histogram, len(all)), make([][]float64, len(all))
	for i := range histograms {
		histograms[i] = load.NewHistogram()
	}
	puts := int(cfg.Turn / interval)
	for round := range cfg.Rounds + 1 {
		for i := range all {
			n := (i + round) % len(all)
			h, err := all[n].turn(ctx, puts)
			if err != nil {
				return fmt.Errorf("taking turn of %s: %w", all[n].target.Name, err)
			}
			if round > 0 {
				histograms[n].Add(h)
				tails[n] = append(tails[n], h.Micros(99))
			}
		}
		if err := r.Compact(ctx); err != nil {
			return err
		}
	}
	add(rep, all, histograms, tails)
	return nil
}

// add reports the distributions, and the one figure that has a limit.
func add(rep *report.Report, all []*crowd, histograms []*load.Histogram, tails [][]float64) {
	at := map[string]int{}
	for i, c := range all {
		at[c.target.Name] = i
	}
	for i, c := range all {
		rep.AddLatency(histograms[i].Latency(Name, c.target.Name, 1/interval.Seconds()))
		rep.Add(Name, c.target.Name, report.Sampled("p99", "us", tails[i]))
		name, _ := rig.Baselines(c.target.Name)
		direct, ok := at[name]
		if !ok || direct == i {
			continue
		}
		ratios := report.Ratios(tails[i], tails[direct])
		rep.Add(Name, c.target.Name, report.Sampled("p99 over direct", "", ratios))
		if c.target.Name == rig.Sealing {
			rep.AddSampled(Name+": p99 from put to event over direct", ratios, "", report.AtMost, overDirect)
		}
	}
}

// crowd are the watches of one key through one target.
type crowd struct {
	target  *rig.Target
	key     []byte
	conns   []*grpc.ClientConn
	readers sync.WaitGroup
	sent    uint64 // number of the last put
	events  chan event
	failed  chan error // holds the first failure
	count   int
	dues    atomic.Pointer[[]time.Time] // when each put of a turn was to begin
	first   atomic.Uint64               // number of the turn's first put
}

// event is one that has arrived.
type event struct {
	number uint64
	took   time.Duration
}

// newCrowd returns a crowd to be closed even after an error, unless it is nil.
func newCrowd(ctx context.Context, t *rig.Target, key string, watches int) (*crowd, error) {
	c := &crowd{target: t, key: []byte(key), events: make(chan event, 4*watches), failed: make(chan error, 1), count: watches}
	for range connections {
		conn, err := grpc.NewClient(t.Address, t.Dial()...)
		if err != nil {
			return c, fmt.Errorf("making client: %w", err)
		}
		c.conns = append(c.conns, conn)
	}
	for i := range watches {
		stream, err := Watch(ctx, c.conns[i%connections], c.key)
		if err != nil {
			return c, err
		}
		c.readers.Go(func() { c.read(ctx, stream) })
	}
	return c, nil
}

// close waits for the readers, whose context must have ended.
func (c *crowd) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.readers.Wait()
}

// read reports every event until the stream ends.
func (c *crowd) read(ctx context.Context, stream pb.Watch_WatchClient) {
	for {
		response, err := stream.Recv()
		if err == nil && response.Canceled {
			err = errors.New("the watch was cancelled: " + response.CancelReason)
		}
		now := time.Now()
		if err != nil {
			if ctx.Err() == nil {
				c.fail(fmt.Errorf("reading events: %w", err))
			}
			return
		}
		for _, e := range response.Events {
			if len(e.Kv.Value) != valueSize {
				c.fail(fmt.Errorf("reading events: a value of %d bytes, want %d", len(e.Kv.Value), valueSize))
				return
			}
			number := binary.LittleEndian.Uint64(e.Kv.Value)
			dues, i := *c.dues.Load(), number-c.first.Load()
			if i >= uint64(len(dues)) {
				c.fail(fmt.Errorf("reading events: number %d was not put in this turn", number))
				return
			}
			select {
			case c.events <- event{number, now.Sub(dues[i])}:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (c *crowd) fail(err error) {
	select {
	case c.failed <- err:
	default: // another one came first
	}
}

// turn puts a number of values at equal distances and waits until every watch has all of them.
func (c *crowd) turn(ctx context.Context, puts int) (*load.Histogram, error) {
	defer load.HoldGarbage()()
	begin := time.Now().Add(interval)
	dues := make([]time.Time, puts)
	for i := range dues {
		dues[i] = begin.Add(time.Duration(i) * interval)
	}
	c.dues.Store(&dues)
	c.first.Store(c.sent + 1)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(puts)*interval+patience)
	defer cancel()
	written := make(chan error, 1)
	go func() { written <- c.write(ctx, dues) }()
	h := load.NewHistogram()
	for range puts * c.count {
		select {
		case e := <-c.events:
			h.Record(e.took)
		case err := <-c.failed:
			cancel()
			return nil, errors.Join(err, <-written)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for events: %d of %d arrived: %w", h.Count(), puts*c.count, ctx.Err()), <-written)
		}
	}
	return h, <-written
}

// write puts each value when it is due, or late when the one before took too long: its events count from when it was due.
func (c *crowd) write(ctx context.Context, dues []time.Time) error {
	kv := pb.NewKVClient(c.conns[0])
	for _, due := range dues {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return ctx.Err()
		}
		c.sent++
		value := make([]byte, valueSize)
		binary.LittleEndian.PutUint64(value, c.sent)
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: c.key, Value: value}); err != nil {
			return fmt.Errorf("putting value: %w", err)
		}
	}
	return nil
}

// Watch opens a stream with one watch of a key, previous values included as kube-apiserver asks for them, and waits until it is there.
func Watch(ctx context.Context, conn *grpc.ClientConn, key []byte) (pb.Watch_WatchClient, error) {
	stream, err := pb.NewWatchClient(conn).Watch(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("opening watch stream: %w", err)
	}
	request := &pb.WatchCreateRequest{Key: key, PrevKv: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}); err != nil {
		return nil, fmt.Errorf("creating watch: %w", err)
	}
	response, err := stream.Recv()
	if err != nil {
		return nil, fmt.Errorf("awaiting watch: %w", err)
	}
	if !response.Created || response.Canceled {
		return nil, fmt.Errorf("creating watch: refused: %s", response.CancelReason)
	}
	return stream, nil
}
