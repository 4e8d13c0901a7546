package assist

import (
	"bytes"
	"context"
	"math"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// Range answers a range. Errors are etcd's own.
func (e *Engine) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if !e.sorts(r) {
		return e.KV.Range(ctx, r)
	}
	resp, err := e.KV.Range(ctx, unsorted(r))
	if err != nil {
		return nil, err
	}
	sortAnswer(r, resp)
	return resp, nil
}

// sorts reports whether a range is to be in the order of values of which some are
// sealed. Orders that etcd does not know are left to it to refuse.
func (e *Engine) sorts(r *pb.RangeRequest) bool {
	if r.GetSortTarget() != pb.RangeRequest_VALUE || len(r.GetRangeEnd()) == 0 || r.GetCountOnly() {
		return false
	}
	_, known := pb.RangeRequest_SortOrder_name[int32(r.GetSortOrder())]
	return known && e.Sealed(r.Key, r.RangeEnd)
}

// unsorted asks for what etcd itself would sort (executeRange in
// server/etcdserver/txn/range.go): everything that passes the filters, or, if no
// order is named and nothing filtered, the keys up to the limit and one more.
func unsorted(r *pb.RangeRequest) *pb.RangeRequest {
	out := cloneRange(r)
	out.SortOrder, out.SortTarget, out.KeysOnly = pb.RangeRequest_NONE, pb.RangeRequest_KEY, false
	filtered := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	switch {
	case r.SortOrder != pb.RangeRequest_NONE || filtered:
		out.Limit = 0
	case r.Limit > 0 && r.Limit < math.MaxInt64:
		out.Limit = r.Limit + 1
	}
	return out
}

func cloneRange(r *pb.RangeRequest) *pb.RangeRequest { return proto.Clone(r).(*pb.RangeRequest) }

// sortAnswers sorts the ranges in an answer to a transaction, at every depth.
func (e *Engine) sortAnswers(t *pb.TxnRequest, resp *pb.TxnResponse) {
	ops := t.Success
	if !resp.GetSucceeded() {
		ops = t.Failure
	}
	for i, op := range ops[:min(len(ops), len(resp.GetResponses()))] {
		answer := resp.Responses[i]
		if inner := op.GetRequestTxn(); inner != nil && answer.GetResponseTxn() != nil {
			e.sortAnswers(inner, answer.GetResponseTxn())
		}
		if r := op.GetRequestRange(); r != nil && e.sorts(r) && answer.GetResponseRange() != nil {
			sortAnswer(r, answer.GetResponseRange())
		}
	}
}

// sortAnswer makes the answer to the unsorted request that to the original one. Keys
// of the same value come in the order in which etcd has them, which is that of the
// standard library's algorithm: it is not stable, but always does the same.
func sortAnswer(r *pb.RangeRequest, resp *pb.RangeResponse) {
	var order sort.Interface = byValue(resp.Kvs)
	if r.SortOrder == pb.RangeRequest_DESCEND {
		order = sort.Reverse(order)
	}
	sort.Sort(order)
	resp.More = r.Limit > 0 && int64(len(resp.Kvs)) > r.Limit
	if resp.More {
		clear(resp.Kvs[r.Limit:])
		resp.Kvs = resp.Kvs[:r.Limit]
	}
	if r.KeysOnly {
		for _, kv := range resp.Kvs {
			kv.Value = nil
		}
	}
}

type byValue []*mvccpb.KeyValue

func (s byValue) Len() int           { return len(s) }
func (s byValue) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s byValue) Less(i, j int) bool { return bytes.Compare(s[i].Value, s[j].Value) < 0 }
