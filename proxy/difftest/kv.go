package difftest

import (
	"context"
	"fmt"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

func (e *engine) put(ctx context.Context) error {
	_, err := call(ctx, e, pb.KV_Put_FullMethodName, e.putRequest(), &pb.PutResponse{}, nil)
	return err
}

// putRequest now and then has ignore_value or ignore_lease together with what they forbid, a key that does not exist, or a lease that does not.
func (e *engine) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: e.space.key(e.rng), PrevKv: e.chance(3)}
	if r.IgnoreValue = e.chance(10); !r.IgnoreValue || e.chance(20) {
		r.Value = e.space.value(e.rng)
	}
	if r.IgnoreLease = e.chance(12); !r.IgnoreLease || e.chance(20) {
		r.Lease = e.leaseOrNone()
	}
	return r
}

func (e *engine) rangeKeys(ctx context.Context) error {
	_, err := call(ctx, e, pb.KV_Range_FullMethodName, e.rangeRequest(), &pb.RangeResponse{}, nil)
	return err
}

func (e *engine) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Serializable: e.chance(4), KeysOnly: e.chance(8), CountOnly: e.chance(10)}
	r.Key, r.RangeEnd = e.space.interval(e.rng, true)
	if e.chance(3) {
		r.Limit = int64(e.rng.IntN(12))
	}
	if e.chance(3) {
		r.Revision = e.revision()
	}
	if e.chance(3) {
		r.SortOrder = pb.RangeRequest_SortOrder(e.rng.IntN(3))
		r.SortTarget = pick(e.rng, e.sortTargets(r.Key, r.RangeEnd))
	}
	for _, bound := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if e.chance(12) {
			*bound = e.revision()
		}
	}
	return r
}

func (e *engine) sortTargets(key, end []byte) []pb.RangeRequest_SortTarget {
	targets := []pb.RangeRequest_SortTarget{pb.RangeRequest_KEY, pb.RangeRequest_VERSION, pb.RangeRequest_CREATE, pb.RangeRequest_MOD}
	if e.cfg.SealedValueOrder || !e.space.touchesSealed(key, end) {
		targets = append(targets, pb.RangeRequest_VALUE)
	}
	return targets
}

// revision is mostly one that exists; some are compacted, some lie in the future, some are the ones on the edges.
func (e *engine) revision() int64 {
	switch e.rng.IntN(12) {
	case 0:
		return max(1, e.compacted-int64(e.rng.IntN(5)))
	case 1:
		return e.compacted + 1
	case 2:
		return e.rev + int64(e.rng.IntN(3))
	default:
		return e.compacted + e.rng.Int64N(e.rev-e.compacted+1)
	}
}

// rangeStream compares the chunks put together: etcd cuts them by the size of what it stores.
func (e *engine) rangeStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	request := e.rangeRequest()
	if request.SortOrder == pb.RangeRequest_NONE && e.space.touchesSealed(request.Key, request.RangeEnd) {
		// etcd sorts each chunk by value and goes on after the last key in that order: what comes depends on how long the stored values are.
		request.SortTarget = pb.RangeRequest_KEY
	}
	r, s := both(e, func(p *endpoint) answer {
		chunks, a := receive(pb.NewKVClient(p.conn).RangeStream(ctx, proto.Clone(request).(*pb.RangeRequest)))
		if len(chunks) > 0 {
			a.messages = joined(chunks)
		}
		return a
	})
	return e.compare(pb.KV_RangeStream_FullMethodName, request, r, s)
}

// joined puts chunks together. A header, a count or more before the last chunk are against etcd's promise; such chunks are left apart, to be seen.
func joined(chunks []*pb.RangeStreamResponse) []proto.Message {
	whole := &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{}}
	for i, c := range chunks {
		part := c.GetRangeResponse()
		if i < len(chunks)-1 && (part.GetHeader() != nil || part.GetCount() != 0 || part.GetMore() || len(part.GetKvs()) == 0) {
			apart := make([]proto.Message, len(chunks))
			for j, c := range chunks {
				apart[j] = c
			}
			return apart
		}
		proto.Merge(whole, c)
	}
	return []proto.Message{whole}
}

func (e *engine) deleteRange(ctx context.Context) error {
	_, err := call(ctx, e, pb.KV_DeleteRange_FullMethodName, e.deleteRequest(), &pb.DeleteRangeResponse{}, nil)
	return err
}

// deleteRequest is mostly of one key, lest nothing is left to look at.
func (e *engine) deleteRequest() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: e.space.key(e.rng), PrevKv: e.chance(2)}
	if e.chance(8) {
		r.Key, r.RangeEnd = e.space.interval(e.rng, false)
	}
	return r
}

// compact lets every watch see all that it will see first: whether an event or its predecessor is still there would be a matter of chance.
func (e *engine) compact(ctx context.Context) error {
	if err := e.settleAll(ctx); err != nil {
		return err
	}
	request := &pb.CompactionRequest{Revision: e.revision(), Physical: e.chance(2)}
	response, err := call(ctx, e, pb.KV_Compact_FullMethodName, request, &pb.CompactionResponse{}, nil)
	if response != nil {
		e.compacted = request.Revision
	}
	return err
}

// bad is a request that etcd refuses for its form.
func (e *engine) bad(ctx context.Context) error {
	empty := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Value: []byte("v")}}}
	many := slices.Repeat([]*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: e.space.key(e.rng)}}}}, 128+e.rng.IntN(2))
	twice := slices.Repeat([]*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: e.space.key(e.rng)}}}}, 2)
	requests := []proto.Message{
		&pb.PutRequest{Value: []byte("v")}, &pb.RangeRequest{}, &pb.DeleteRangeRequest{}, &pb.TxnRequest{},
		&pb.PutRequest{Key: e.space.key(e.rng), Value: []byte("v"), IgnoreValue: true},
		&pb.PutRequest{Key: e.space.key(e.rng), Lease: 1, IgnoreLease: true},
		&pb.PutRequest{Key: []byte(e.space.sealed + "absent"), IgnoreValue: true},
		&pb.PutRequest{Key: []byte("zoo/absent"), IgnoreLease: true},
		&pb.PutRequest{Key: e.space.key(e.rng), Lease: 4711},
		&pb.RangeRequest{Key: e.space.key(e.rng), SortOrder: 7}, &pb.RangeRequest{Key: e.space.plainKey(e.rng), SortTarget: 9},
		&pb.RangeRequest{Key: e.space.key(e.rng), Revision: e.rev + 1000},
		&pb.TxnRequest{Success: []*pb.RequestOp{{}}}, &pb.TxnRequest{Failure: []*pb.RequestOp{empty}},
		&pb.TxnRequest{Compare: []*pb.Compare{{}}}, &pb.TxnRequest{Success: many}, &pb.TxnRequest{Success: twice},
		&pb.CompactionRequest{Revision: e.rev + 1000},
	}
	if e.compacted > 0 {
		requests = append(requests, &pb.CompactionRequest{Revision: e.compacted}, &pb.RangeRequest{Key: e.space.key(e.rng), Revision: max(1, e.compacted-1)})
	}
	return e.send(ctx, pick(e.rng, requests))
}

// send makes the KV call that a request belongs to.
func (e *engine) send(ctx context.Context, request proto.Message) error {
	var err error
	switch r := request.(type) {
	case *pb.PutRequest:
		_, err = call(ctx, e, pb.KV_Put_FullMethodName, r, &pb.PutResponse{}, nil)
	case *pb.RangeRequest:
		_, err = call(ctx, e, pb.KV_Range_FullMethodName, r, &pb.RangeResponse{}, nil)
	case *pb.DeleteRangeRequest:
		_, err = call(ctx, e, pb.KV_DeleteRange_FullMethodName, r, &pb.DeleteRangeResponse{}, nil)
	case *pb.TxnRequest:
		_, err = call(ctx, e, pb.KV_Txn_FullMethodName, r, &pb.TxnResponse{}, nil)
	case *pb.CompactionRequest:
		_, err = call(ctx, e, pb.KV_Compact_FullMethodName, r, &pb.CompactionResponse{}, nil)
	default:
		panic(fmt.Sprintf("difftest: no call for %T", request))
	}
	return err
}

// huge writes a value on either side of etcd's two limits: that of a request in the log, and that of a message, which is 512 KiB more. For a plain
// key it may be the very edge. For a sealed one the edge may lie elsewhere by the envelope's overhead, and is left out.
func (e *engine) huge(ctx context.Context) error {
	request, message := e.cfg.MaxRequestBytes, e.cfg.MaxRequestBytes+512<<10
	r := &pb.PutRequest{Key: e.space.key(e.rng), PrevKv: e.chance(2)}
	switch edge := e.rng.IntN(300) - 150; {
	case e.chance(3):
		r.Value = noise(e.rng, request*2/3)
	case e.space.touchesSealed(r.Key, nil):
		r.Value = noise(e.rng, pick(e.rng, []int{request - 8<<10, request + 8<<10, message - 8<<10, message + 8<<10}))
	default:
		r.Value = noise(e.rng, pick(e.rng, []int{request, message})+edge)
	}
	if !e.chance(2) {
		e.offTheEdge(r, func() *pb.InternalRaftRequest { return &pb.InternalRaftRequest{Put: r} })
		return e.send(ctx, r)
	}
	t := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: r}}}}
	e.offTheEdge(r, func() *pb.InternalRaftRequest { return &pb.InternalRaftRequest{Txn: t} })
	return e.send(ctx, t)
}

// offTheEdge makes a value longer by a few bytes when the request as etcd logs it is about as long as the limit: a number that etcd puts into it takes
// more bytes on one server than on another.
func (e *engine) offTheEdge(r *pb.PutRequest, logged func() *pb.InternalRaftRequest) {
	const vague = 8
	request := logged()
	request.Header = &pb.RequestHeader{ID: math.MaxUint64}
	if over := proto.Size(request) - e.cfg.MaxRequestBytes; -vague < over && over < 2*vague {
		r.Value = append(r.Value, make([]byte, 2*vague)...)
	}
}
