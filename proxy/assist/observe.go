package assist

import (
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// usualLimit is etcd's limit of operations unless --max-txn-ops says otherwise.
const usualLimit = 128

// span is a key range.
type span struct{ key, end string }

func spanOf(c *pb.Compare) span { return span{string(c.Key), string(c.RangeEnd)} }

// view is what some key ranges held at one revision.
type view struct {
	header   *pb.ResponseHeader
	revision int64
	found    map[span][]*mvccpb.KeyValue
}

// at returns the keys of a comparison.
func (v *view) at(c *pb.Compare) []*mvccpb.KeyValue { return v.found[spanOf(c)] }

// covers reports whether a comparison's keys were looked at.
func (v *view) covers(c *pb.Compare) bool {
	_, ok := v.found[spanOf(c)]
	return ok
}

func (v *view) coversAll(list []*pb.Compare) bool {
	return !slices.ContainsFunc(list, func(c *pb.Compare) bool { return !v.covers(c) })
}

// observe reads the ranges of comparisons, all at one revision. The first error is
// that of etcd to such a read by whoever asked.
func (e *Engine) observe(ctx context.Context, compares []*pb.Compare, serializable bool) (*view, error) {
	v := &view{found: map[span][]*mvccpb.KeyValue{}}
	var spans []*pb.RangeRequest
	for _, c := range compares {
		if !v.covers(c) {
			v.found[spanOf(c)] = nil
			spans = append(spans, &pb.RangeRequest{Key: c.Key, RangeEnd: c.RangeEnd, Serializable: serializable})
		}
	}
	if len(spans) == 1 {
		resp, err := e.KV.Range(ctx, spans[0])
		if err != nil {
			return nil, err
		}
		v.take(resp.Header, spans[0], resp)
		return v, nil
	}
	for at, most := 0, usualLimit; at < len(spans); {
		part := spans[at:min(at+most, len(spans))]
		t := &pb.TxnRequest{}
		for _, r := range part {
			r.Revision = v.revision // 0 until it is known
			t.Success = append(t.Success, rangeOp(r))
		}
		resp, err := e.KV.Txn(ctx, t)
		switch {
		case tooMany(err) && len(part) > 1:
			most = len(part) / 2
			continue
		case at > 0 && compacted(err):
			return nil, errRaced
		case err != nil:
			return nil, err
		}
		for i, r := range part {
			v.take(resp.Header, r, resp.Responses[i].GetResponseRange())
		}
		at += len(part)
	}
	return v, nil
}

// take keeps an answer. The revision is the first one's.
func (v *view) take(h *pb.ResponseHeader, r *pb.RangeRequest, resp *pb.RangeResponse) {
	if v.header == nil {
		v.header, v.revision = h, h.GetRevision()
	}
	v.found[span{string(r.Key), string(r.RangeEnd)}] = resp.GetKvs()
}

func compacted(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) }
