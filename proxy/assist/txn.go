package assist

import (
	"context"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// write makes one try of a transaction that may write: it looks at the compared
// keys, decides, and has etcd carry out the transaction with its comparisons
// decided, on the condition that the keys are as they were. One that turns out to
// write nothing, as a swap that fails, needs no such condition.
func (e *Engine) write(ctx context.Context, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	var compares []*pb.Compare
	eachCompare(t, true, func(c *pb.Compare, _ bool) {
		if e.compares(c) {
			compares = append(compares, c)
		}
	})
	v, err := e.observe(ctx, compares, false)
	if err != nil {
		return nil, e.judged(ctx, t, err)
	}
	if succeeded, ok := e.settled(t, v); ok && allRead(t, succeeded) {
		return e.pinned(ctx, t, v, succeeded)
	}
	var g guards
	e.guardReached(t, v, &g)
	heavy := weight(t)
	if n := max(1, len(g.list)) + heavy; n > usualLimit && heavy <= usualLimit {
		return e.direct(ctx, t, v)
	}
	resp, err := e.wrapped(ctx, t, v, g.list)
	if tooMany(err) {
		return e.direct(ctx, t, v)
	}
	return resp, err
}

// each replaces the comparisons by sealed values one by one.
func (e *Engine) each(other func(*pb.Compare) *pb.Compare) deciding {
	return func(list []*pb.Compare) []*pb.Compare {
		out := make([]*pb.Compare, len(list))
		for i, c := range list {
			if out[i] = c; e.compares(c) {
				out[i] = other(c)
			}
		}
		return out
	}
}

// decided replaces comparisons by others with the outcome that was observed.
func (e *Engine) decided(v *view) deciding {
	return e.each(func(c *pb.Compare) *pb.Compare {
		if holds(c, v.at(c)) {
			return always(c.Key, nil)
		}
		return never(c.Key, nil)
	})
}

// fewest does it with as few as there can be: none for those that are true, one for
// all that are false. The others stay, for etcd to look at.
func (e *Engine) fewest(v *view) deciding {
	return func(list []*pb.Compare) []*pb.Compare {
		var out []*pb.Compare
		failed := false
		for _, c := range list {
			switch {
			case !e.compares(c):
				out = append(out, c)
			case !failed && !holds(c, v.at(c)):
				failed = true
				out = append(out, never(c.Key, nil))
			}
		}
		return out
	}
}

// guardReached adds guards for the comparisons on which the outcome can depend. One
// that is false decides its transaction, whatever the others are.
func (e *Engine) guardReached(t *pb.TxnRequest, v *view, g *guards) {
	var mine []*pb.Compare
	for _, c := range t.Compare {
		if !e.compares(c) {
			continue
		}
		if !holds(c, v.at(c)) {
			g.add(guard(c, v)...)
			e.guardInside(t.Failure, v, g)
			return
		}
		mine = append(mine, c)
	}
	for _, c := range mine {
		g.add(guard(c, v)...)
	}
	e.guardInside(t.Success, v, g)
	if len(mine) < len(t.Compare) { // the rest is for etcd to decide
		e.guardInside(t.Failure, v, g)
	}
}

func (e *Engine) guardInside(ops []*pb.RequestOp, v *view, g *guards) {
	for _, op := range ops {
		if inner := op.GetRequestTxn(); inner != nil {
			e.guardReached(inner, v, g)
		}
	}
}

// wrapped puts the whole transaction into one that is carried out only if the
// guards are true.
func (e *Engine) wrapped(ctx context.Context, t *pb.TxnRequest, v *view, guards []*pb.Compare) (*pb.TxnResponse, error) {
	resp, err := e.KV.Txn(ctx, &pb.TxnRequest{
		Compare: guards,
		Success: []*pb.RequestOp{txnOp(e.rebuild(t, e.decided(v)))},
	})
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		return nil, errRaced
	}
	if len(resp.Responses) != 1 || resp.Responses[0].GetResponseTxn() == nil { // not to be made again: it was carried out
		return nil, status.Errorf(codes.DataLoss, "etcdseal: the transaction was applied at revision %d, but its answer is not one of a transaction", resp.GetHeader().GetRevision())
	}
	inner := resp.Responses[0].GetResponseTxn()
	inner.Header = resp.Header
	return inner, nil
}

// direct is for a transaction that is at etcd's limit of operations and cannot be
// put into another one. Its own comparisons are all decided here, so that it is
// known which branch is taken, and the guards take their place. The other branch is
// checked by a transaction that does nothing. What was seen is looked at again only
// if something is missing. Comparisons without effect make up for those that were
// left out, so that the limit is etcd's for the original.
func (e *Engine) direct(ctx context.Context, t *pb.TxnRequest, v *view) (*pb.TxnResponse, error) {
	var compares []*pb.Compare
	eachCompare(t, true, func(c *pb.Compare, outermost bool) {
		if outermost || e.compares(c) {
			compares = append(compares, c)
		}
	})
	if !v.coversAll(compares) {
		var err error
		if v, err = e.observe(ctx, compares, false); err != nil {
			return nil, e.judged(ctx, t, err)
		}
	}
	var g guards
	taken, other, succeeded := t.Success, t.Failure, true
	for _, c := range t.Compare {
		if !holds(c, v.at(c)) {
			taken, other, succeeded = t.Failure, t.Success, false
			g = guards{}
			g.add(guard(c, v)...)
			break
		}
		if e.compares(c) {
			g.add(guard(c, v)...)
		} else {
			g.list = append(g.list, c)
		}
	}
	e.guardInside(taken, v, &g)
	if len(other) > 0 {
		check := &pb.TxnRequest{Success: e.rebuildOps(other, e.fewest(v))}
		check.Compare = []*pb.Compare{never(compares[0].Key, nil)}
		if _, err := e.KV.Txn(ctx, check); err != nil {
			return nil, err
		}
	}
	main := &pb.TxnRequest{Compare: g.list, Success: e.rebuildOps(taken, e.fewest(v))}
	resp, err := e.KV.Txn(ctx, e.padded(main, t))
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		return nil, errRaced
	}
	resp.Succeeded = succeeded
	return resp, nil
}

// read makes one try of a transaction that only reads. It looks at all compared
// keys, and so knows which branch is taken.
func (e *Engine) read(ctx context.Context, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	v, err := e.observe(ctx, t.Compare, serializable(t))
	if err != nil {
		return nil, e.judged(ctx, t, err)
	}
	for _, c := range t.Compare {
		if !holds(c, v.at(c)) {
			return e.pinned(ctx, t, v, false)
		}
	}
	return e.pinned(ctx, t, v, true)
}

// settled reports which branch of a transaction is taken if what was observed alone
// decides it.
func (e *Engine) settled(t *pb.TxnRequest, v *view) (succeeded, ok bool) {
	ok = true
	for _, c := range t.Compare {
		switch {
		case !e.compares(c):
			ok = false
		case !holds(c, v.at(c)):
			return false, true
		}
	}
	return true, ok
}

// pinned carries out a transaction whose branch is known and only reads, at the very
// revision that was observed. So it needs no guards and cannot be disturbed. The
// other branch is there to be checked.
func (e *Engine) pinned(ctx context.Context, t *pb.TxnRequest, v *view, succeeded bool) (*pb.TxnResponse, error) {
	taken, other := t.Success, t.Failure
	if !succeeded {
		taken, other = other, taken
	}
	if len(taken)+len(other) == 0 && len(t.Compare) == 1 {
		return &pb.TxnResponse{Header: v.header, Succeeded: succeeded}, nil
	}
	ops, own := pin(e.rebuildOps(taken, nil), v.revision)
	main := &pb.TxnRequest{Success: ops, Failure: e.rebuildOps(other, e.fewest(v))}
	for _, c := range t.Compare {
		if !e.compares(c) { // may the caller read this?
			main.Compare = append(main.Compare, always(c.Key, c.RangeEnd))
		}
	}
	resp, err := e.KV.Txn(ctx, e.padded(main, t))
	if compacted(err) && !own {
		return nil, errRaced
	}
	if err != nil {
		return nil, err
	}
	resp.Succeeded = succeeded
	resp.Header.Revision = v.revision
	for _, r := range resp.Responses {
		if h := r.GetResponseRange().GetHeader(); h != nil {
			h.Revision = v.revision
		}
	}
	return resp, nil
}

// padded gives a transaction comparisons without effect, so that it weighs as much
// as the original: whether that is too much is for etcd to say.
func (e *Engine) padded(t, original *pb.TxnRequest) *pb.TxnRequest {
	key := e.firstCompare(original).Key
	for n := weight(original) - deepest(t) - len(t.Compare); n > 0; n-- {
		t.Compare = append(t.Compare, always(key, nil))
	}
	return t
}

// pin has ranges read at a revision, and reports whether any of them asks for one of
// its own. What lies in that revision's future is left to etcd to refuse.
func pin(ops []*pb.RequestOp, revision int64) (pinned []*pb.RequestOp, own bool) {
	for _, op := range ops {
		r := cloneRange(op.GetRequestRange())
		switch {
		case r.Revision == 0:
			r.Revision = revision
		case r.Revision > revision:
			r.Revision = math.MaxInt64
			own = true
		default:
			own = true
		}
		pinned = append(pinned, rangeOp(r))
	}
	return pinned, own
}
