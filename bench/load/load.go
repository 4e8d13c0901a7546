// Package load is the load generator of the benchmark: gRPC calls over a few connections, either as fast as answers come at a fixed number in flight
// (Run), or at a fixed rate whatever the answers do (RunAt).
//
// It shares the machine with what it measures, so it does as little as it can: requests are ready bytes and answers are measured, not decoded.
package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// grace is how long the last calls of a run may take beyond its duration before it fails.
const grace = time.Minute

// Call makes one call on the connection, checks the answer and is safe for concurrent use. An error ends the run.
type Call func(ctx context.Context, conn *grpc.ClientConn) error

// Pool is a number of connections to one target. One run at a time.
type Pool struct {
	conns []*grpc.ClientConn
}

// Result is what one run did.
type Result struct {
	Calls   int
	Elapsed time.Duration
}

// Dial makes a pool. Connections are established by the first run.
func Dial(address string, conns int, opts ...grpc.DialOption) (*Pool, error) {
	p := &Pool{}
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

// Run keeps a number of calls in flight for d, spread over the connections, then waits for the last ones, which count. The first failing call ends it.
func (p *Pool) Run(ctx context.Context, call Call, inFlight int, d time.Duration) (Result, error) {
	ctx, cancelTime := context.WithTimeout(ctx, d+grace)
	defer cancelTime()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var calls atomic.Int64
	var workers sync.WaitGroup
	start := time.Now()
	deadline := start.Add(d)
	for i := range inFlight {
		conn := p.conns[i%len(p.conns)]
		workers.Go(func() {
			for ctx.Err() == nil && time.Now().Before(deadline) {
				if err := call(ctx, conn); err != nil {
					cancel(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	return Result{Calls: int(calls.Load()), Elapsed: time.Since(start)}, nil
}
