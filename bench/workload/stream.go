package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// aroundValues is what a message of a stream has at most beside its keys and values: the header, the count and two lengths.
const aroundValues = 64

// prepareStream has everything sent by RangeStream, as kube-apiserver asks for most lists. The values are compared whenever the target is checked, and
// each stream that is measured has to be as long as one whose values are right.
func prepareStream(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string) (*Prepared, error) {
	d, err := fill(ctx, t, conn, prefix, limit, small)
	if err != nil {
		return nil, err
	}
	request := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: endOfPrefix(prefix)}
	requests, err := load.Serialise(request)
	if err != nil {
		return nil, err
	}
	size, err := d.checkStream(ctx, conn, request)
	if err != nil {
		return nil, err
	}
	check := func(ctx context.Context, through, direct *grpc.ClientConn) (int, error) {
		if _, err := d.checkStream(ctx, through, request); err != nil {
			return 0, err
		}
		return d.check(ctx, through, direct)
	}
	return &Prepared{check: check, Call: func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := load.Stream(ctx, conn, pb.KV_RangeStream_FullMethodName, requests[0])
		if err != nil {
			return err
		}
		if most := size + r.Messages*aroundValues; r.Size < size || r.Size > most {
			return fmt.Errorf("checking answer: %d bytes in %d messages, want %d to %d", r.Size, r.Messages, size, most)
		}
		return nil
	}}, nil
}

// checkStream proves that a stream brings what was written, and returns how many bytes its keys and values take.
func (d *data) checkStream(ctx context.Context, conn *grpc.ClientConn, request *pb.RangeRequest) (size int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewKVClient(conn).RangeStream(ctx, request)
	if err != nil {
		return 0, fmt.Errorf("starting a stream: %w", err)
	}
	var kvs []*mvccpb.KeyValue
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("reading a stream: %w", err)
		}
		kvs = append(kvs, r.RangeResponse.GetKvs()...)
	}
	if len(kvs) != len(d.values) {
		return 0, fmt.Errorf("reading a stream: %d keys, want %d", len(kvs), len(d.values))
	}
	for i, kv := range kvs {
		if !bytes.Equal(kv.Key, d.key(i)) || !bytes.Equal(kv.Value, d.values[i]) {
			return 0, fmt.Errorf("reading a stream: %s is something else than was written (an envelope: %t)", d.key(i), bytes.HasPrefix(kv.Value, []byte(envelopeMagic)))
		}
	}
	return proto.Size(&pb.RangeResponse{Kvs: kvs}), nil
}
