package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// This file is the reference that the walker is compared with: the same
// questions answered by etcd's generated code.

// change says what becomes of a value; ok is false if it stays.
type change func(key, old []byte) (new []byte, ok bool)

// grow is a change that makes values longer, as sealing does.
func grow(key, old []byte) ([]byte, bool) {
	return slices.Concat([]byte("sealed:"), key, []byte{':'}, old, bytes.Repeat([]byte{1}, 40)), true
}

// shrink is a change that makes values shorter, as opening does: some lose their
// first bytes, some become empty, some stay.
func shrink(key, old []byte) ([]byte, bool) {
	switch sum := len(key) + len(old) + int(slices.Max(append([]byte{0}, old...))); {
	case sum%5 == 0:
		return old[:0], true
	case sum%5 == 1 || len(old) < 3:
		return nil, false
	case sum%5 == 2:
		return old[:len(old)-1], true
	}
	return old[(len(old)+1)/3:], true
}

// mixed is a change after which some values are longer and some are shorter.
func mixed(key, old []byte) ([]byte, bool) {
	if len(old)%2 == 0 {
		return grow(key, old)
	}
	return shrink(key, old)
}

// changeAll applies a change to every value in a message of generated code. It
// knows where values are by the types that hold them, not by the tables.
func changeAll(p proto.Message, f change) {
	set := func(key []byte, value *[]byte) {
		if v, ok := f(key, *value); ok {
			*value = v
		}
	}
	switch p := p.(type) {
	case *mvccpb.KeyValue:
		if len(p.Value) > 0 {
			set(p.Key, &p.Value)
		}
	case *etcdserverpb.PutRequest:
		if !p.IgnoreValue {
			set(p.Key, &p.Value)
		}
	case *v3electionpb.ProclaimRequest:
		set(p.Leader.GetKey(), &p.Value)
	case *v3electionpb.CampaignRequest:
		if p.Lease != 0 {
			set(fmt.Appendf(nil, "%s/%x", p.Name, p.Lease), &p.Value)
		} else {
			set(nil, &p.Value)
		}
	}
	p.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				changeAll(v.List().Get(i).Message().Interface(), f)
			}
		default:
			changeAll(v.Message().Interface(), f)
		}
		return true
	})
}

// opsOf lists the operations of a request of generated code, with the value of a
// Put beside its Op.
func opsOf(p proto.Message, depth int) []putOp {
	put := func(op Op, value []byte) []putOp { return []putOp{{op, string(value)}} }
	switch p := p.(type) {
	case *etcdserverpb.PutRequest:
		return put(Op{
			Kind: OpPut, Depth: depth, Key: p.Key, Lease: p.Lease,
			IgnoreValue: p.IgnoreValue, IgnoreLease: p.IgnoreLease, PrevKV: p.PrevKv,
		}, p.Value)
	case *etcdserverpb.RangeRequest:
		return put(Op{
			Kind: OpRange, Depth: depth, Value: -1, Key: p.Key, End: p.RangeEnd, Limit: p.Limit, Revision: p.Revision,
			SortOrder: int32(p.SortOrder), SortTarget: int32(p.SortTarget),
			Serializable: p.Serializable, KeysOnly: p.KeysOnly, CountOnly: p.CountOnly,
			Filters: p.MinModRevision != 0 || p.MaxModRevision != 0 || p.MinCreateRevision != 0 || p.MaxCreateRevision != 0,
		}, nil)
	case *etcdserverpb.DeleteRangeRequest:
		return put(Op{Kind: OpDelete, Depth: depth, Value: -1, Key: p.Key, End: p.RangeEnd, PrevKV: p.PrevKv}, nil)
	case *etcdserverpb.TxnRequest:
		return txnOps(p, depth)
	case *v3electionpb.CampaignRequest:
		op := leaseOp(p.Name, p.Lease)
		op.Value = 0
		return put(op, p.Value)
	case *v3lockpb.LockRequest:
		return put(leaseOp(p.Name, p.Lease), nil)
	case *v3electionpb.LeaderRequest:
		op := leaseOp(p.Name, 0)
		op.Kind = OpRange
		return put(op, nil)
	case *v3electionpb.ProclaimRequest:
		return put(Op{Kind: OpPut, Key: p.Leader.GetKey(), Lease: p.Leader.GetLease()}, p.Value)
	case *v3electionpb.ResignRequest:
		return put(Op{Kind: OpDelete, Value: -1, Key: p.Leader.GetKey(), Lease: p.Leader.GetLease()}, nil)
	case *v3lockpb.UnlockRequest:
		return put(Op{Kind: OpDelete, Value: -1, Key: p.Key}, nil)
	}
	return nil
}

// putOp is an Op with the value that it puts.
type putOp struct {
	Op
	Put string
}

// leaseOp is what Campaign and Lock do.
func leaseOp(name []byte, lease int64) Op {
	op := Op{Kind: OpPut, Value: -1, Name: name, Lease: lease}
	if lease == 0 {
		op.Key, op.End = []byte(string(name)+"/"), []byte(string(name)+"0")
	} else {
		op.Key = []byte(string(name) + "/" + strconv.FormatInt(lease, 16))
	}
	return op
}

func txnOps(p *etcdserverpb.TxnRequest, depth int) (ops []putOp) {
	for _, c := range p.Compare {
		v, isValue := c.TargetUnion.(*etcdserverpb.Compare_Value)
		op := Op{
			Kind: OpCompare, Depth: depth, Value: -1, Key: c.Key, End: c.RangeEnd,
			Result: int32(c.Result), Target: int32(c.Target), HasOperand: isValue,
		}
		if isValue {
			op.Operand = v.Value
		}
		ops = append(ops, putOp{op, ""})
	}
	for _, r := range slices.Concat(p.Success, p.Failure) {
		switch u := r.Request.(type) {
		case *etcdserverpb.RequestOp_RequestPut:
			ops = append(ops, opsOf(u.RequestPut, depth)...)
		case *etcdserverpb.RequestOp_RequestRange:
			ops = append(ops, opsOf(u.RequestRange, depth)...)
		case *etcdserverpb.RequestOp_RequestDeleteRange:
			ops = append(ops, opsOf(u.RequestDeleteRange, depth)...)
		case *etcdserverpb.RequestOp_RequestTxn:
			ops = append(ops, txnOps(u.RequestTxn, depth+1)...)
		}
	}
	return ops
}

// headerOf returns the header of a response of generated code.
func headerOf(p proto.Message) (Header, bool) {
	var h *etcdserverpb.ResponseHeader
	switch p := p.(type) {
	case *etcdserverpb.RangeStreamResponse:
		h = p.GetRangeResponse().GetHeader()
	case interface {
		GetHeader() *etcdserverpb.ResponseHeader
	}:
		h = p.GetHeader()
	}
	return Header{h.GetClusterId(), h.GetMemberId(), h.GetRevision(), h.GetRaftTerm()}, h != nil
}

// watchOf returns what a watch message of generated code says.
func watchOf(p proto.Message) (w Watch) {
	switch p := p.(type) {
	case *etcdserverpb.WatchResponse:
		return Watch{
			ID: p.WatchId, Created: p.Created, Canceled: p.Canceled, Fragment: p.Fragment,
			CompactRevision: p.CompactRevision, CancelReason: []byte(p.CancelReason), Events: len(p.Events),
		}
	case *etcdserverpb.WatchRequest:
		switch u := p.RequestUnion.(type) {
		case *etcdserverpb.WatchRequest_CreateRequest:
			c := u.CreateRequest
			w = Watch{
				Kind: WatchCreate, ID: c.WatchId, Key: c.Key, End: c.RangeEnd, StartRevision: c.StartRevision,
				ProgressNotify: c.ProgressNotify, PrevKV: c.PrevKv, WantsFragmenting: c.Fragment,
			}
			if len(c.Key) == 0 {
				w.Key = []byte{0}
			}
		case *etcdserverpb.WatchRequest_CancelRequest:
			w = Watch{Kind: WatchCancel, ID: u.CancelRequest.WatchId}
		case *etcdserverpb.WatchRequest_ProgressRequest:
			w = Watch{Kind: WatchProgress}
		}
	}
	return w
}

// newRand returns a source of random numbers that is the same in every run.
func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
