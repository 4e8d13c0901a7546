package difftest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	// leaseCount ids are used, from 1 on, whether granted or not.
	leaseCount = 6
	// leaseTTL is, in seconds, long enough for no lease to end during a run.
	leaseTTL = 100_000
	// leaseDrift is, in seconds, how far the remaining times of two leases that were granted at the same step may be apart.
	leaseDrift = 60
)

func (e *engine) leaseID() int64 { return 1 + e.rng.Int64N(leaseCount) }

// leaseOrNone is none most of the time.
func (e *engine) leaseOrNone() int64 {
	if e.chance(6) {
		return e.leaseID()
	}
	return 0
}

func (e *engine) leaseGrant(ctx context.Context) error {
	request := &pb.LeaseGrantRequest{ID: e.leaseID(), TTL: leaseTTL + e.rng.Int64N(100)}
	if e.chance(10) {
		request.TTL = 9_000_000_001 // above etcd's maximum
	}
	_, err := call(ctx, e, pb.Lease_LeaseGrant_FullMethodName, request, &pb.LeaseGrantResponse{}, nil)
	return err
}

func (e *engine) leaseRevoke(ctx context.Context) error {
	_, err := call(ctx, e, pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: e.leaseID()}, &pb.LeaseRevokeResponse{}, nil)
	return err
}

func (e *engine) leaseTimeToLive(ctx context.Context) error {
	request := &pb.LeaseTimeToLiveRequest{ID: e.leaseID(), Keys: e.chance(2)}
	_, err := call(ctx, e, pb.Lease_LeaseTimeToLive_FullMethodName, request, &pb.LeaseTimeToLiveResponse{}, func(r, s *pb.LeaseTimeToLiveResponse) {
		slices.SortFunc(r.Keys, bytes.Compare)
		slices.SortFunc(s.Keys, bytes.Compare)
		if drift := r.TTL - s.TTL; r.TTL > 0 && s.TTL > 0 && -leaseDrift < drift && drift < leaseDrift {
			s.TTL = r.TTL
		}
	})
	return err
}

// leases compares the ids in order of number: etcd gives them in order of expiry.
func (e *engine) leases(ctx context.Context) error {
	_, err := call(ctx, e, pb.Lease_LeaseLeases_FullMethodName, &pb.LeaseLeasesRequest{}, &pb.LeaseLeasesResponse{}, func(r, s *pb.LeaseLeasesResponse) {
		byID := func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) }
		slices.SortFunc(r.Leases, byID)
		slices.SortFunc(s.Leases, byID)
	})
	return err
}

// leaseKeepAlive renews once on a stream of its own, closes its half and reads to the end.
func (e *engine) leaseKeepAlive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	request := &pb.LeaseKeepAliveRequest{ID: e.leaseID()}
	r, s := both(e, func(p *endpoint) answer {
		stream, err := pb.NewLeaseClient(p.conn).LeaseKeepAlive(ctx)
		if err != nil {
			return answer{status: status.Convert(err)}
		}
		var first *pb.LeaseKeepAliveResponse
		if err = stream.Send(proto.Clone(request).(*pb.LeaseKeepAliveRequest)); err == nil || errors.Is(err, io.EOF) {
			first, err = stream.Recv()
		}
		if err != nil {
			return answer{status: status.Convert(err)}
		}
		err = stream.CloseSend()
		rest, a := receive(stream, err)
		for _, m := range append([]*pb.LeaseKeepAliveResponse{first}, rest...) {
			a.messages = append(a.messages, m)
		}
		return a
	})
	return e.compare(pb.Lease_LeaseKeepAlive_FullMethodName, request, r, s)
}
