package workload

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// object is one that is created, updated and deleted in turn, by one call at a time.
type object struct {
	key      []byte
	revision int64 // of its last change; 0 while it does not exist
	updated  bool
}

// life makes the transactions of objects in kube-apiserver's three shapes.
type life struct {
	prefix string
	sealed bool
	value  []byte
	idle   free[*object]
	made   int // objects, under idle's mutex
}

// prepareTxn creates, updates and deletes objects, a third each. Their lives go on from round to round.
func prepareTxn(_ context.Context, t *rig.Target, _ *grpc.ClientConn, prefix string) (*Prepared, error) {
	l := newLife(prefix, t.Sealed)
	return &Prepared{Call: l.call, check: l.check}, nil
}

func newLife(prefix string, sealed bool) *life {
	return &life{prefix: prefix, sealed: sealed, value: random(0, small)}
}

// call makes the next transaction of any object that is idle.
func (l *life) call(ctx context.Context, conn *grpc.ClientConn) error {
	o := l.idle.take(func() *object {
		l.made++
		return &object{key: fmt.Appendf(nil, "%s%06d", l.prefix, l.made)}
	})
	if err := l.step(ctx, conn, o); err != nil {
		return err
	}
	l.idle.put(o)
	return nil
}

// existing counts the objects that exist, as the answers said. No call may be at work.
func (l *life) existing() (n int) {
	l.idle.mu.Lock()
	defer l.idle.mu.Unlock()
	for _, o := range l.idle.idle {
		if o.revision != 0 {
			n++
		}
	}
	return n
}

// check looks at the objects that exist; when none does, one is created first.
func (l *life) check(ctx context.Context, through, direct *grpc.ClientConn) (overhead int, err error) {
	if l.existing() == 0 {
		if err := l.call(ctx, through); err != nil {
			return 0, err
		}
	}
	request := &pb.RangeRequest{Key: []byte(l.prefix), RangeEnd: endOfPrefix(l.prefix)}
	got, err := pb.NewKVClient(through).Range(ctx, request)
	if err != nil {
		return 0, fmt.Errorf("reading through it: %w", err)
	}
	held, err := pb.NewKVClient(direct).Range(ctx, request)
	if err != nil {
		return 0, fmt.Errorf("reading etcd: %w", err)
	}
	if want := l.existing(); len(got.Kvs) != want || len(held.Kvs) != want {
		return 0, fmt.Errorf("%d objects through it and %d in etcd, want %d", len(got.Kvs), len(held.Kvs), want)
	}
	for i, kv := range held.Kvs {
		if overhead, err = compare(got.Kvs[i].Value, kv.Value, l.value, l.sealed); err != nil {
			return 0, fmt.Errorf("looking at %s: %w", kv.Key, err)
		}
	}
	return overhead, nil
}

// step makes the next transaction of an object. That it fails to compare is an error: nobody else changes the object.
func (l *life) step(ctx context.Context, conn *grpc.ClientConn, o *object) error {
	var txn *pb.TxnRequest
	switch {
	case o.revision == 0:
		txn = create(o.key, l.value)
	case !o.updated:
		txn = update(o.key, l.value, o.revision)
	default:
		txn = remove(o.key, o.revision)
	}
	reply, err := transact(ctx, conn, txn)
	if err != nil {
		return err
	}
	switch {
	case o.revision == 0:
		o.revision = reply.Revision
	case !o.updated:
		o.revision, o.updated = reply.Revision, true
	default:
		o.revision, o.updated = 0, false
	}
	return nil
}

func transact(ctx context.Context, conn *grpc.ClientConn, txn *pb.TxnRequest) (load.Reply, error) {
	serialised, err := proto.Marshal(txn)
	if err != nil {
		return load.Reply{}, fmt.Errorf("serialising transaction: %w", err)
	}
	reply, err := load.Invoke(ctx, conn, pb.KV_Txn_FullMethodName, serialised)
	if err != nil {
		return load.Reply{}, err
	}
	if !reply.Succeeded || reply.Revision == 0 {
		return load.Reply{}, errors.New("checking answer: a transaction on an object that nobody else changes did not succeed")
	}
	return reply, nil
}

// create is If MOD = 0 Then Put.
func create(key, value []byte) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: unchanged(key, 0), Success: []*pb.RequestOp{put(key, value)}}
}

// update is If MOD = N Then Put Else Range, the end of a GuaranteedUpdate.
func update(key, value []byte, revision int64) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: unchanged(key, revision), Success: []*pb.RequestOp{put(key, value)}, Failure: []*pb.RequestOp{read(key)}}
}

// remove is If MOD = N Then DeleteRange Else Range.
func remove(key []byte, revision int64) *pb.TxnRequest {
	deletion := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
	return &pb.TxnRequest{Compare: unchanged(key, revision), Success: []*pb.RequestOp{deletion}, Failure: []*pb.RequestOp{read(key)}}
}

func unchanged(key []byte, revision int64) []*pb.Compare {
	return []*pb.Compare{{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision}}}
}

func put(key, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}
}

func read(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
}
