package difftest

import (
	"bytes"
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// electionNames are of elections, some of whose keys are sealed. No key of the space begins with one and a slash, since a campaign would wait for it to
// be deleted.
func (e *engine) electionNames() []string {
	return []string{e.space.sealed + "el/a", e.space.sealed + "el/b", "zoo/el"}
}

// election makes a call that does not wait: a campaign only where nobody else leads. Leases are always named, since the ids that etcd makes are in the
// keys.
func (e *engine) election(ctx context.Context) error {
	name := []byte(pick(e.rng, e.electionNames()))
	leader, err := e.leader(ctx, name)
	if err != nil {
		return err
	}
	lease := e.leaseID()
	key := &v3electionpb.LeaderKey{Name: name, Key: e.space.key(e.rng), Rev: e.revision(), Lease: lease}
	if leader != nil {
		key.Key, key.Rev, key.Lease = leader.Key, leader.CreateRevision, leader.Lease
		if e.chance(6) {
			key.Rev++ // somebody who led before
		}
		if e.chance(6) {
			key.Name = []byte("another") // which etcd does not look at
		}
	}
	mayLead := leader == nil || string(leader.Key) == fmt.Sprintf("%s/%x", name, lease)
	switch n := e.rng.IntN(8); {
	case n < 4 && mayLead:
		value := e.space.value(e.rng)
		if leader != nil && e.chance(2) {
			value = leader.Value
		}
		request := &v3electionpb.CampaignRequest{Name: name, Lease: lease, Value: value}
		_, err = call(ctx, e, v3electionpb.Election_Campaign_FullMethodName, request, &v3electionpb.CampaignResponse{}, nil)
	case n < 5:
		_, err = call(ctx, e, v3electionpb.Election_Resign_FullMethodName, &v3electionpb.ResignRequest{Leader: key}, &v3electionpb.ResignResponse{}, nil)
	case n < 6 && leader != nil:
		err = e.observe(ctx, name)
	case n < 7 && e.chance(10):
		_, err = call(ctx, e, v3electionpb.Election_Proclaim_FullMethodName, &v3electionpb.ProclaimRequest{}, &v3electionpb.ProclaimResponse{}, nil)
	default:
		request := &v3electionpb.ProclaimRequest{Leader: key, Value: e.space.value(e.rng)}
		_, err = call(ctx, e, v3electionpb.Election_Proclaim_FullMethodName, request, &v3electionpb.ProclaimResponse{}, nil)
	}
	return err
}

// leader asks who leads, now and then in an election of which other keys are a part.
func (e *engine) leader(ctx context.Context, name []byte) (*mvccpb.KeyValue, error) {
	if e.chance(6) {
		wide := &v3electionpb.LeaderRequest{Name: []byte("/registry/secrets")}
		if _, err := call(ctx, e, v3electionpb.Election_Leader_FullMethodName, wide, &v3electionpb.LeaderResponse{}, nil); err != nil {
			return nil, err
		}
	}
	r, err := call(ctx, e, v3electionpb.Election_Leader_FullMethodName, &v3electionpb.LeaderRequest{Name: name}, &v3electionpb.LeaderResponse{}, nil)
	return r.GetKv(), err
}

// observe compares the first message of a stream that would go on.
func (e *engine) observe(ctx context.Context, name []byte) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	request := &v3electionpb.LeaderRequest{Name: name}
	r, s := both(e, func(p *endpoint) answer {
		stream, err := v3electionpb.NewElectionClient(p.conn).Observe(ctx, proto.Clone(request).(*v3electionpb.LeaderRequest))
		if err != nil {
			return answer{status: status.Convert(err)}
		}
		m, err := stream.Recv()
		if err != nil {
			return answer{status: status.Convert(err)}
		}
		return answer{messages: []proto.Message{m}, status: status.Convert(nil)}
	})
	return e.compare(v3electionpb.Election_Observe_FullMethodName, request, r, s)
}

// lock takes a lock that is free, or gives back one that is not.
func (e *engine) lock(ctx context.Context) error {
	name := []byte(pick(e.rng, []string{e.space.sealed + "lock", "zoo/lock"}))
	prefix := string(name) + "/"
	first := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: endOf(prefix), SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND, Limit: 1}
	held, err := call(ctx, e, pb.KV_Range_FullMethodName, first, &pb.RangeResponse{}, nil)
	if err != nil {
		return err
	}
	request := &v3lockpb.LockRequest{Name: name, Lease: e.leaseID()}
	if len(held.GetKvs()) > 0 && !bytes.Equal(held.Kvs[0].Key, fmt.Appendf(nil, "%s%x", prefix, request.Lease)) {
		_, err = call(ctx, e, v3lockpb.Lock_Unlock_FullMethodName, &v3lockpb.UnlockRequest{Key: held.Kvs[0].Key}, &v3lockpb.UnlockResponse{}, nil)
		return err
	}
	_, err = call(ctx, e, v3lockpb.Lock_Lock_FullMethodName, request, &v3lockpb.LockResponse{}, nil)
	return err
}
