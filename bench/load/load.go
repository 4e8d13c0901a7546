// Package load is the load generator of the benchmark: unary gRPC calls whose requests were serialised before, at a fixed number in flight.
//
// It shares the machine with what it measures, so it does as little as it can: requests are ready bytes and responses are measured, not decoded.
package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Work is one kind of call.
type Work struct {
	// Method is the full name, such as "/etcdserverpb.KV/Range".
	Method string
	// Requests are the serialised requests; each call takes one at random. They are not modified.
	Requests [][]byte
	// MinReply is the least number of bytes that a right answer has; a shorter one stops the run with an error.
	MinReply int
}

// Pool is a number of connections to one target, on which calls are kept in flight. One Run at a time.
type Pool struct {
	conns    []*grpc.ClientConn
	inFlight int
}

// Result is what one run did.
type Result struct {
	Calls   int
	Elapsed time.Duration
}

// Dial makes a pool. Connections are established by the first run. inFlight is the number of calls in flight over all connections; it must be
// a multiple of conns.
func Dial(address string, conns, inFlight int, opts ...grpc.DialOption) (*Pool, error) {
	if conns <= 0 || inFlight%conns != 0 {
		return nil, fmt.Errorf("sharing %d calls among %d connections: not an even share", inFlight, conns)
	}
	p := &Pool{inFlight: inFlight}
	for range conns {
		c, err := grpc.NewClient(address, opts...)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("making client of %s: %w", address, err)
		}
		p.conns = append(p.conns, c)
	}
	return p, nil
}

// Conn is the i-th connection, for calls outside a run.
func (p *Pool) Conn(i int) *grpc.ClientConn { return p.conns[i] }

// Close closes every connection.
func (p *Pool) Close() {
	for _, c := range p.conns {
		c.Close()
	}
}

// Run keeps the pool's number of calls in flight for d, then waits for the last ones, which count. The first failing call ends the run.
func (p *Pool) Run(ctx context.Context, w Work, d time.Duration) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var calls atomic.Int64
	var workers sync.WaitGroup
	start := time.Now()
	for i := range p.inFlight {
		conn := p.conns[i%len(p.conns)]
		workers.Go(func() {
			n, err := repeat(ctx, conn, w, start.Add(d))
			calls.Add(int64(n))
			if err != nil {
				cancel(err)
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return Result{}, fmt.Errorf("calling %s: %w", w.Method, err)
	}
	return Result{Calls: int(calls.Load()), Elapsed: time.Since(start)}, nil
}

// repeat makes one call after the other until the deadline and says how many there were.
func repeat(ctx context.Context, conn *grpc.ClientConn, w Work, deadline time.Time) (int, error) {
	for n := 0; ; n++ {
		if ctx.Err() != nil || !time.Now().Before(deadline) {
			return n, nil
		}
		size, err := call(ctx, conn, w.Method, w.Requests[rand.IntN(len(w.Requests))])
		if err != nil {
			return n, err
		}
		if size < w.MinReply {
			return n, fmt.Errorf("checking answer: %d bytes, want at least %d", size, w.MinReply)
		}
	}
}

// Serialise turns messages into the requests of a Work.
func Serialise[M proto.Message](messages []M) ([][]byte, error) {
	out := make([][]byte, len(messages))
	for i, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("serialising request %d: %w", i, err)
		}
		out[i] = b
	}
	return out, nil
}
