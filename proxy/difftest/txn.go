package difftest

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// txnDepth is how many Txns may lie within one another.
const txnDepth = 4

func (e *engine) txn(ctx context.Context) error {
	r := e.txnRequest(1)
	if deletesToTheEnd(r) {
		forgetIgnore(r)
	}
	return e.send(ctx, r)
}

// deletesToTheEnd says whether a Txn has a deletion from a key to the end of all keys. Together with a put that keeps the value or the lease of a key
// in that range it ends etcd 3.7.3: the check for overlaps takes the range for empty, and the put finds nothing to keep (etcdserver/txn/put.go).
func deletesToTheEnd(r *pb.TxnRequest) bool {
	return anyOp(r, func(op *pb.RequestOp) bool { return string(op.GetRequestDeleteRange().GetRangeEnd()) == "\x00" })
}

// forgetIgnore has every put bring its own value and lease.
func forgetIgnore(r *pb.TxnRequest) {
	anyOp(r, func(op *pb.RequestOp) bool {
		if put := op.GetRequestPut(); put != nil {
			put.IgnoreValue, put.IgnoreLease = false, false
		}
		return false
	})
}

// anyOp looks at every operation at every depth until f is true.
func anyOp(r *pb.TxnRequest, f func(*pb.RequestOp) bool) bool {
	return slices.ContainsFunc(slices.Concat(r.Success, r.Failure), func(op *pb.RequestOp) bool {
		return f(op) || op.GetRequestTxn() != nil && anyOp(op.GetRequestTxn(), f)
	})
}

func (e *engine) txnRequest(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range e.rng.IntN(4) {
		r.Compare = append(r.Compare, e.comparison())
	}
	for _, branch := range []*[]*pb.RequestOp{&r.Success, &r.Failure} {
		for range e.rng.IntN(5) {
			*branch = append(*branch, e.txnOp(depth))
		}
	}
	return r
}

func (e *engine) txnOp(depth int) *pb.RequestOp {
	switch n := e.rng.IntN(12); {
	case n < 5:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: e.putRequest()}}
	case n < 8:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: e.rangeRequest()}}
	case n < 10 || depth == txnDepth:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: e.deleteRequest()}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: e.txnRequest(depth + 1)}}
	}
}

// comparison is of one key or a range of them. VALUE is compared only where no sealed key is, unless the configuration says that it may.
func (e *engine) comparison() *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(e.rng.IntN(4)), Key: e.space.key(e.rng)}
	if e.chance(5) {
		c.Key, c.RangeEnd = e.space.interval(e.rng, true)
	}
	targets := []pb.Compare_CompareTarget{pb.Compare_VERSION, pb.Compare_CREATE, pb.Compare_MOD, pb.Compare_LEASE}
	if e.cfg.SealedValueOrder || !e.space.touchesSealed(c.Key, c.RangeEnd) {
		targets = append(targets, pb.Compare_VALUE, pb.Compare_VALUE, pb.Compare_VALUE)
	}
	switch c.Target = pick(e.rng, targets); c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: int64(e.rng.IntN(4))}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: e.revision()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: e.revision()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: e.leaseOrNone()}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: e.space.value(e.rng)}
		if e.chance(2) {
			c.TargetUnion = &pb.Compare_Value{Value: []byte(pick(e.rng, common))}
		}
	}
	if e.chance(20) { // an operand of another kind than the target, or none
		c.TargetUnion = pick(e.rng, []*pb.Compare{{}, {TargetUnion: &pb.Compare_Value{Value: []byte("a")}}, {TargetUnion: &pb.Compare_Lease{Lease: 1}}}).TargetUnion
	}
	return c
}
