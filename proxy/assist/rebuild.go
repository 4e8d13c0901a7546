package assist

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// deciding makes other comparisons of those of one transaction, so that etcd need
// not know values.
type deciding func([]*pb.Compare) []*pb.Compare

// rebuild returns a transaction that etcd can carry out: no range in it is sorted
// by sealed values, and its comparisons are decided at every depth, unless decide is
// nil. The original is not changed; what is equal is shared.
func (e *Engine) rebuild(t *pb.TxnRequest, decide deciding) *pb.TxnRequest {
	out := &pb.TxnRequest{
		Compare: t.Compare,
		Success: e.rebuildOps(t.Success, decide),
		Failure: e.rebuildOps(t.Failure, decide),
	}
	out.ProtoReflect().SetUnknown(t.ProtoReflect().GetUnknown())
	if decide != nil {
		out.Compare = decide(t.Compare)
	}
	return out
}

func (e *Engine) rebuildOps(ops []*pb.RequestOp, decide deciding) []*pb.RequestOp {
	out := make([]*pb.RequestOp, len(ops))
	for i, op := range ops {
		out[i] = op
		switch {
		case op.GetRequestTxn() != nil:
			out[i] = txnOp(e.rebuild(op.GetRequestTxn(), decide))
		case op.GetRequestRange() != nil && e.sorts(op.GetRequestRange()):
			out[i] = rangeOp(unsorted(op.GetRequestRange()))
		}
	}
	return out
}

func txnOp(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

// weight is what etcd holds against its limit of operations: the longest list of
// each level, added up along the deepest path (checkTxnRequest in
// server/etcdserver/api/v3rpc/key.go).
func weight(t *pb.TxnRequest) int {
	return max(len(t.Compare), len(t.Success), len(t.Failure)) + deepest(t)
}

// deepest is the weight of what is inside.
func deepest(t *pb.TxnRequest) int {
	n := 0
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			if inner := op.GetRequestTxn(); inner != nil {
				n = max(n, weight(inner))
			}
		}
	}
	return n
}

// comparesAnywhere reports whether values of sealed keys are compared at any depth.
func (e *Engine) comparesAnywhere(t *pb.TxnRequest) bool { return e.firstCompare(t) != nil }

// firstCompare finds the first of such comparisons, nil if there is none.
func (e *Engine) firstCompare(t *pb.TxnRequest) *pb.Compare {
	var first *pb.Compare
	eachCompare(t, true, func(c *pb.Compare, _ bool) {
		if first == nil && e.compares(c) {
			first = c
		}
	})
	return first
}

// eachCompare calls f for every comparison at every depth and tells it which of
// them are the outermost transaction's.
func eachCompare(t *pb.TxnRequest, outermost bool, f func(c *pb.Compare, outermost bool)) {
	for _, c := range t.Compare {
		f(c, outermost)
	}
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			if inner := op.GetRequestTxn(); inner != nil {
				eachCompare(inner, false, f)
			}
		}
	}
}

// readOnly reports whether etcd treats a transaction as one that only reads: those
// with a transaction inside are not, whatever they do.
func readOnly(t *pb.TxnRequest) bool {
	return allRanges(t, func(*pb.RangeRequest) bool { return true })
}

// serializable reports whether etcd answers a read-only transaction from what its
// member has, without asking the others.
func serializable(t *pb.TxnRequest) bool { return allRanges(t, (*pb.RangeRequest).GetSerializable) }

// allRead reports whether one branch of a transaction has nothing but ranges.
func allRead(t *pb.TxnRequest, succeeded bool) bool {
	if succeeded {
		return readOnly(&pb.TxnRequest{Success: t.Success})
	}
	return readOnly(&pb.TxnRequest{Failure: t.Failure})
}

func allRanges(t *pb.TxnRequest, is func(*pb.RangeRequest) bool) bool {
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			if r := op.GetRequestRange(); r == nil || !is(r) {
				return false
			}
		}
	}
	return true
}
