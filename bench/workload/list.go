package workload

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// reader is somebody who reads a list page by page: where it goes on, and the revision of its first page.
type reader struct {
	next     int
	revision int64
}

// prepareList reads lists in pages of 500. Each call is one page; the pages after the first ask for the first one's revision, as kube-apiserver does.
func prepareList(count, size int) func(context.Context, *rig.Target, *grpc.ClientConn, string) (*Prepared, error) {
	return func(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string) (*Prepared, error) {
		d, err := fill(ctx, t, conn, prefix, count, size)
		if err != nil {
			return nil, err
		}
		var readers free[reader]
		return &Prepared{check: d.check, restart: readers.clear, Call: func(ctx context.Context, conn *grpc.ClientConn) error {
			at := readers.take(func() reader { return reader{} })
			request := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: endOfPrefix(prefix), Limit: limit}
			if at.next > 0 {
				// The key after the last one that was got, as a continue token says it.
				request.Key, request.Revision = append(d.key(at.next-1), 0), at.revision
			}
			serialised, err := proto.Marshal(request)
			if err != nil {
				return fmt.Errorf("serialising list: %w", err)
			}
			reply, err := load.Invoke(ctx, conn, pb.KV_Range_FullMethodName, serialised)
			if err != nil {
				return err
			}
			if at.next == 0 {
				at.revision = reply.Revision
			}
			if at.next += limit; at.next < count {
				readers.put(at)
			}
			return atLeast(reply, limit*size)
		}}, nil
	}
}
