// Package assist answers the calls that etcd cannot answer from sealed values:
// transactions that compare by value, and ranges sorted by value. It makes each of
// them out of other calls whose outcome does not depend on what etcd stores.
//
// It works on plaintext: whoever gives it a [KV] sees to it that values are sealed
// and opened on the way. It knows no keys, holds no state between calls, and has
// etcd do whatever etcd can: permissions, limits, revisions, and every check whose
// text a client might know.
//
// What it promises is that an answer is one that etcd could have given at that
// moment with the values in plain: the values were what they were taken for at the
// very revision at which the operations were carried out, or the call is made
// again. A call that fails, other than by a connection that broke under it, has
// changed nothing.
package assist

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// DefaultAttempts is how often a transaction is tried whose compared keys change
// between the look at them and the transaction itself.
const DefaultAttempts = 64

// errRaced says that what was observed was not so any more when it mattered.
// Nothing was changed.
var errRaced = errors.New("the compared keys have changed")

// KV is the part of etcd's KV service that is needed. The values that go in and
// come out are plaintext. Calls carry the identity of whoever asked, which is in
// their context.
type KV interface {
	Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error)
	Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error)
}

// Engine answers calls. It may be used by many goroutines at once, and is not
// changed after its first use. KV and Sealed must be set.
type Engine struct {
	KV KV
	// Sealed reports whether etcd's key range can hold a key whose stored value is
	// not its plaintext.
	Sealed func(key, end []byte) bool
	// Attempts bounds the tries of one transaction; 0 is DefaultAttempts.
	Attempts int
	// Pause waits before the given try, the second being 1. Nil waits at random, for
	// up to a few milliseconds more each time, but not before the first few.
	Pause func(ctx context.Context, try int) error
	// Retried, if set, is told of each try after the first.
	Retried func()
}

// compares reports whether a comparison is by the value of keys that are sealed.
func (e *Engine) compares(c *pb.Compare) bool {
	return c.GetTarget() == pb.Compare_VALUE && e.Sealed(c.GetKey(), c.GetRangeEnd())
}

// Txn answers a transaction. Errors are gRPC statuses: etcd's own, or Unavailable
// after too many tries.
func (e *Engine) Txn(ctx context.Context, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp, err := e.txn(ctx, t)
	if err != nil {
		return nil, err
	}
	e.sortAnswers(t, resp)
	return resp, nil
}

// txn answers a transaction but for the order of its ranges.
func (e *Engine) txn(ctx context.Context, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	once := e.write
	switch {
	case !e.comparesAnywhere(t):
		return e.KV.Txn(ctx, e.rebuild(t, nil))
	case readOnly(t):
		once = e.read
	}
	attempts := e.Attempts
	if attempts == 0 {
		attempts = DefaultAttempts
	}
	for try := range attempts {
		if try > 0 {
			if err := e.pause(ctx, try); err != nil {
				return nil, status.FromContextError(err).Err()
			}
		}
		resp, err := once(ctx, t)
		if !errors.Is(err, errRaced) {
			return resp, err
		}
	}
	return nil, status.Errorf(codes.Unavailable, "etcdseal: comparing values: the compared keys have changed %d times while the transaction was under way, and nothing was done", attempts)
}

const (
	eagerTries = 4 // tries before which there is no pause
	maxPause   = 32 * time.Millisecond
)

// pause waits before another try.
func (e *Engine) pause(ctx context.Context, try int) error {
	if e.Retried != nil {
		e.Retried()
	}
	if e.Pause != nil {
		return e.Pause(ctx, try)
	}
	if try < eagerTries {
		return ctx.Err()
	}
	most := min(time.Millisecond<<min(try-eagerTries, 10), maxPause)
	t := time.NewTimer(rand.N(most))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tooMany reports whether etcd said that a transaction has too many operations.
func tooMany(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrTooManyOps) }

// passing reports whether an error says nothing of the request itself.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

// judged returns what etcd says to a transaction whose compared keys could not be
// read: etcd finds fault with the form of a request before it looks at anything
// else. It is asked with a transaction that has the whole of the original in a
// branch that is not taken, so that all of it is checked and none of it done. The
// error stands if etcd has nothing against the transaction.
func (e *Engine) judged(ctx context.Context, t *pb.TxnRequest, err error) error {
	if passing(err) {
		return err
	}
	asked := e.rebuild(t, e.each(func(c *pb.Compare) *pb.Compare { return never(c.Key, c.RangeEnd) }))
	_, verdict := e.KV.Txn(ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{txnOp(asked)}})
	if tooMany(verdict) {
		// Of the original as well, or only of what is one level deeper?
		c := e.firstCompare(t)
		bound := make([]*pb.Compare, weight(t))
		for i := range bound {
			bound[i] = never(c.Key, nil)
		}
		if _, probe := e.KV.Txn(ctx, &pb.TxnRequest{Compare: bound}); !tooMany(probe) {
			return err
		}
	}
	if verdict == nil || passing(verdict) {
		return err
	}
	return verdict
}
