package assist

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// holds reports whether a comparison is true of the keys in its range, as etcd
// decides it (applyCompare in server/etcdserver/txn/txn.go): of every one of them,
// or, if there are none, of a key that was never written, which has no value.
func holds(c *pb.Compare, kvs []*mvccpb.KeyValue) bool {
	if len(kvs) == 0 {
		return c.GetTarget() != pb.Compare_VALUE && holdsFor(c, &mvccpb.KeyValue{})
	}
	for _, kv := range kvs {
		if !holdsFor(c, kv) {
			return false
		}
	}
	return true
}

// holdsFor does it for one key. An operand of another kind than the target counts
// as 0 or empty.
func holdsFor(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var order int
	switch c.GetTarget() {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.GetValue(), c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.GetCreateRevision(), c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.GetModRevision(), c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.GetVersion(), c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.GetLease(), c.GetLease())
	}
	switch c.GetResult() {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return true
}

// never is a comparison over a key range that is false of all keys, present or not.
func never(key, end []byte) *pb.Compare { return byVersion(key, end, pb.Compare_LESS, 0) }

// always is one that is true.
func always(key, end []byte) *pb.Compare { return byVersion(key, end, pb.Compare_GREATER, -1) }

func byVersion(key, end []byte, result pb.Compare_CompareResult, n int64) *pb.Compare {
	return &pb.Compare{Key: key, RangeEnd: end, Target: pb.Compare_VERSION, Result: result, TargetUnion: &pb.Compare_Version{Version: n}}
}

func byMod(key, end []byte, result pb.Compare_CompareResult, n int64) *pb.Compare {
	return &pb.Compare{Key: key, RangeEnd: end, Target: pb.Compare_MOD, Result: result, TargetUnion: &pb.Compare_ModRevision{ModRevision: n}}
}

// guard returns comparisons that etcd can make and that are all true of what was
// observed. While they are, the given comparison has the outcome that it had then.
func guard(c *pb.Compare, v *view) []*pb.Compare {
	kvs := v.at(c)
	switch {
	case len(c.RangeEnd) == 0:
		// Unchanged since, or still not there.
		return []*pb.Compare{byMod(c.Key, nil, pb.Compare_EQUAL, modOf(kvs))}
	case len(kvs) == 0:
		// Still empty.
		return []*pb.Compare{byVersion(c.Key, c.RangeEnd, pb.Compare_EQUAL, 0)}
	}
	for _, kv := range kvs {
		if !holdsFor(c, kv) {
			// The key that makes it false is unchanged.
			return []*pb.Compare{byMod(kv.Key, nil, pb.Compare_EQUAL, kv.ModRevision)}
		}
	}
	if m, ok := commonMod(kvs); ok {
		// Keys that were all written at one revision: some of them are there, and
		// no others.
		return []*pb.Compare{byMod(c.Key, c.RangeEnd, pb.Compare_EQUAL, m)}
	}
	// No key was written since, so that what is there was there; and it is not empty.
	return []*pb.Compare{
		byMod(c.Key, c.RangeEnd, pb.Compare_LESS, v.revision+1),
		byVersion(kvs[0].Key, nil, pb.Compare_GREATER, 0),
	}
}

func modOf(kvs []*mvccpb.KeyValue) int64 {
	if len(kvs) == 0 {
		return 0
	}
	return kvs[0].ModRevision
}

func commonMod(kvs []*mvccpb.KeyValue) (int64, bool) {
	for _, kv := range kvs {
		if kv.ModRevision != kvs[0].ModRevision {
			return 0, false
		}
	}
	return kvs[0].ModRevision, true
}

// guards are those of several comparisons, each once.
type guards struct {
	list []*pb.Compare
	have map[guardKey]bool
}

type guardKey struct {
	target   pb.Compare_CompareTarget
	result   pb.Compare_CompareResult
	key, end string
	number   int64
}

func (g *guards) add(list ...*pb.Compare) {
	if g.have == nil {
		g.have = map[guardKey]bool{}
	}
	for _, c := range list {
		k := guardKey{c.Target, c.Result, string(c.Key), string(c.RangeEnd), c.GetVersion() + c.GetModRevision()}
		if !g.have[k] {
			g.have[k] = true
			g.list = append(g.list, c)
		}
	}
}
