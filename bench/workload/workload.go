// Package workload holds the kinds of calls that are compared: single ones, transactions and lists in the shapes of kube-apiserver
// (k8s.io/apiserver/pkg/storage/etcd3, go.etcd.io/etcd/client/v3/kubernetes), and a mixture of them.
package workload

import (
	"context"
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// The names of the workloads, in the order of the report.
const (
	Get     = "get"
	Put     = "put"
	Txn     = "txn"
	Mixed   = "mixed"
	List    = "list 500 x 1 KiB"
	List10  = "list 500 x 10 KiB"
	Stream  = "stream 500 x 1 KiB"
	Get1M   = "get 1 MiB"
	Put1M   = "put 1 MiB"
	small   = 1 << 10
	medium  = 10 << 10
	large   = 1 << 20
	objects = 500
	paged   = 2000 // values of the lists in pages
	paged10 = 1000
	limit   = 500 // values of a page, as kubectl and client-go ask for
	larges  = 8
)

// Workload is one kind of call.
type Workload struct {
	Name     string
	Short    string // for the command line
	InFlight int    // calls at once when as many as possible are made
	AtRate   bool   // whether its latency is measured at a fixed rate as well
	Streams  bool   // whether it uses RangeStream, which etcd's grpc-proxy does not know

	prepare func(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string) (*Prepared, error)
}

// All are every workload. Large answers have fewer calls in flight: they would only take memory.
var All = []Workload{
	{Name: Get, Short: "get", InFlight: 32, AtRate: true, prepare: prepareGet(objects, small)},
	{Name: Put, Short: "put", InFlight: 32, AtRate: true, prepare: preparePut(objects, small)},
	{Name: Txn, Short: "txn", InFlight: 32, AtRate: true, prepare: prepareTxn},
	{Name: Mixed, Short: "mixed", InFlight: 32, AtRate: true, prepare: prepareMixed},
	{Name: List, Short: "list", InFlight: 32, prepare: prepareList(paged, small)},
	{Name: List10, Short: "list10k", InFlight: 4, prepare: prepareList(paged10, medium)},
	{Name: Stream, Short: "stream", InFlight: 8, Streams: true, prepare: prepareStream},
	{Name: Get1M, Short: "get1m", InFlight: 8, prepare: prepareGet(larges, large)},
	{Name: Put1M, Short: "put1m", InFlight: 8, prepare: preparePut(larges, large)},
}

// For says whether a target knows the workload's calls.
func (w Workload) For(target string) bool { return !w.Streams || target != rig.GRPCProxy }

// check compares what clients get through a target with what was written and what etcd holds, and says by how many bytes the held values are longer.
type check func(ctx context.Context, through, direct *grpc.ClientConn) (overhead int, err error)

// Prepared is a workload over one target, its values written.
type Prepared struct {
	Call    load.Call
	check   check
	restart func() // nil where calls depend on nothing that a compaction takes away
}

// Restart has calls go on from the beginning, as they must after a compaction.
func (p *Prepared) Restart() {
	if p.restart != nil {
		p.restart()
	}
}

// Prepare writes what the workload reads, below the prefix, through the target.
func (w Workload) Prepare(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string) (*Prepared, error) {
	p, err := w.prepare(ctx, t, conn, prefix)
	if err != nil {
		return nil, fmt.Errorf("preparing %s for %s: %w", w.Name, t.Name, err)
	}
	return p, nil
}

// Check proves that clients get what was written through the target, and that etcd holds envelopes exactly when the keys lie under a rule. It returns
// the number of bytes that etcd holds beyond those of a value.
func (p *Prepared) Check(ctx context.Context, through, direct *grpc.ClientConn) (overhead int, err error) {
	return p.check(ctx, through, direct)
}

// atLeast makes an error of an answer that is too short to be right.
func atLeast(r load.Reply, size int) error {
	if r.Size < size {
		return fmt.Errorf("checking answer: %d bytes, want at least %d", r.Size, size)
	}
	return nil
}

// prepareGet reads one value, with the limit that kube-apiserver's client sets.
func prepareGet(count, size int) func(context.Context, *rig.Target, *grpc.ClientConn, string) (*Prepared, error) {
	return func(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string) (*Prepared, error) {
		d, err := fill(ctx, t, conn, prefix, count, size)
		if err != nil {
			return nil, err
		}
		var gets []*pb.RangeRequest
		for i := range d.values {
			gets = append(gets, &pb.RangeRequest{Key: d.key(i), Limit: 1})
		}
		requests, err := load.Serialise(gets...)
		return &Prepared{Call: unary(pb.KV_Range_FullMethodName, requests, size), check: d.check}, err
	}
}

// preparePut writes one value over itself.
func preparePut(count, size int) func(context.Context, *rig.Target, *grpc.ClientConn, string) (*Prepared, error) {
	return func(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string) (*Prepared, error) {
		d, err := fill(ctx, t, conn, prefix, count, size)
		if err != nil {
			return nil, err
		}
		var puts []*pb.PutRequest
		for i := range d.values {
			puts = append(puts, &pb.PutRequest{Key: d.key(i), Value: d.values[i]})
		}
		requests, err := load.Serialise(puts...)
		return &Prepared{Call: unary(pb.KV_Put_FullMethodName, requests, 1), check: d.check}, err
	}
}

// unary makes one of the requests, at random.
func unary(method string, requests [][]byte, least int) load.Call {
	return func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := load.Invoke(ctx, conn, method, requests[rand.IntN(len(requests))])
		if err != nil {
			return err
		}
		return atLeast(r, least)
	}
}
