package difftest

import (
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
	leader, known, err := e.first(ctx, name)
	if err == nil {
		err = e.leader(ctx, name)
	}
	if err != nil || !known {
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
		if err == nil {
			err = e.learn(ctx)
		}
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

// learn reads the revision, for a campaign may write and fail all the same.
func (e *engine) learn(ctx context.Context) error {
	all := &pb.RangeRequest{Key: []byte("\x00"), RangeEnd: []byte("\x00"), CountOnly: true}
	_, err := call(ctx, e, pb.KV_Range_FullMethodName, all, &pb.RangeResponse{}, nil)
	return err
}

// leader asks who leads, now and then in an election of which other keys are a part.
func (e *engine) leader(ctx context.Context, name []byte) error {
	if e.chance(6) {
		name = []byte("/registry/secrets")
	}
	_, err := call(ctx, e, v3electionpb.Election_Leader_FullMethodName, &v3electionpb.LeaderRequest{Name: name}, &v3electionpb.LeaderResponse{}, nil)
	return err
}

// first reads the oldest key of an election or a lock: for its holder, all others wait. It is not known to those who may not read it.
func (e *engine) first(ctx context.Context, name []byte) (kv *mvccpb.KeyValue, known bool, _ error) {
	prefix := string(name) + "/"
	request := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: endOf(prefix), SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND, Limit: 1}
	r, err := call(ctx, e, pb.KV_Range_FullMethodName, request, &pb.RangeResponse{}, nil)
	if len(r.GetKvs()) > 0 {
		kv = r.Kvs[0]
	}
	return kv, r != nil, err
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
	held, known, err := e.first(ctx, name)
	if err != nil || !known {
		return err
	}
	request := &v3lockpb.LockRequest{Name: name, Lease: e.leaseID()}
	if held != nil && string(held.Key) != fmt.Sprintf("%s/%x", name, request.Lease) {
		_, err = call(ctx, e, v3lockpb.Lock_Unlock_FullMethodName, &v3lockpb.UnlockRequest{Key: held.Key}, &v3lockpb.UnlockResponse{}, nil)
		return err
	}
	_, err = call(ctx, e, v3lockpb.Lock_Lock_FullMethodName, request, &v3lockpb.LockResponse{}, nil)
	return err
}
