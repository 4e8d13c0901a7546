package difftest

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// txnDepth is how many Txns may lie within one another.
const txnDepth = 4

func (e *engine) txn(ctx context.Context) error { return e.send(ctx, e.txnRequest(1)) }

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
		targets = append(targets, pb.Compare_VALUE)
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
	}
	return c
}
