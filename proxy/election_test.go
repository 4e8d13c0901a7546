package proxy_test

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// TestElection goes through an election whose keys are under a rule.
func TestElection(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	c := l.conn(t)
	election, lease := v3electionpb.NewElectionClient(c), pb.NewLeaseClient(c)
	name := []byte(sealedPrefix + "e")
	_, err := election.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	wantStatus(t, err, codes.Unknown, "election: no leader")
	observed, err := election.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
	must(t, err)
	granted, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	must(t, err)
	first, err := election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: granted.ID, Value: []byte("one")})
	must(t, err)
	key := fmt.Sprintf("%s/%x", name, granted.ID)
	if string(first.Leader.Key) != key || !envelope.Is(l.stored(t, key)) {
		t.Errorf("the campaign's key is %q and etcd holds %q under it", first.Leader.Key, l.stored(t, key))
	}
	wantLeader(t, ctx, election, name, "one")
	wantObserved(t, observed, "one") // now: who begins to observe later sees later values only

	// The same again changes nothing, another value does.
	before := l.revision(t, key)
	_, err = election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: granted.ID, Value: []byte("one")})
	must(t, err)
	if after := l.revision(t, key); after != before {
		t.Errorf("the same campaign again has written: %d after %d", after, before)
	}
	_, err = election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: granted.ID, Value: []byte("two")})
	must(t, err)
	wantLeader(t, ctx, election, name, "two")

	_, err = election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: first.Leader, Value: []byte("three")})
	must(t, err)
	wantLeader(t, ctx, election, name, "three")
	if !envelope.Is(l.stored(t, key)) {
		t.Error("the proclaimed value is not sealed")
	}
	wantObserved(t, observed, "two")
	wantObserved(t, observed, "three")
	_, err = election.Resign(ctx, &v3electionpb.ResignRequest{Leader: first.Leader})
	must(t, err)
	if l.stored(t, key) != nil {
		t.Error("the key is there after the leader resigned")
	}
}

func wantLeader(t *testing.T, ctx context.Context, election v3electionpb.ElectionClient, name []byte, value string) {
	t.Helper()
	got, err := election.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	must(t, err)
	if string(got.Kv.Value) != value {
		t.Errorf("the leader says %q, want %q", got.Kv.Value, value)
	}
}

func wantObserved(t *testing.T, observed v3electionpb.Election_ObserveClient, value string) {
	t.Helper()
	got, err := observed.Recv()
	must(t, err)
	if string(got.Kv.Value) != value {
		t.Errorf("observed %q, want %q", got.Kv.Value, value)
	}
}

// TestCampaignWithoutALease has etcd's own lease and a key for it.
func TestCampaignWithoutALease(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	c := l.conn(t)
	for _, name := range []string{"/registry/secrets", sealedPrefix + "e", "/elsewhere"} {
		r, err := v3electionpb.NewElectionClient(c).Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte(name), Value: []byte("v")})
		must(t, err)
		if string(r.Leader.Key) != fmt.Sprintf("%s/%x", name, r.Leader.Lease) {
			t.Errorf("the key %q is not that of lease %x", r.Leader.Key, r.Leader.Lease)
		}
		if sealed := envelope.Is(l.stored(t, string(r.Leader.Key))); sealed != (name != "/elsewhere") {
			t.Errorf("%s: sealed is %v", name, sealed)
		}
		ttl, err := pb.NewLeaseClient(c).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: r.Leader.Lease})
		must(t, err)
		if ttl.GrantedTTL != 60 {
			t.Errorf("%s: the lease lives for %d s", name, ttl.GrantedTTL)
		}
		wantLeader(t, ctx, v3electionpb.NewElectionClient(c), []byte(name), "v")
	}
}

// TestCampaignOverAPlaintext seals what was stored in plain, though it is the same.
func TestCampaignOverAPlaintext(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	c := l.conn(t)
	granted, err := pb.NewLeaseClient(c).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	must(t, err)
	key := fmt.Sprintf("%se/%x", sealedPrefix, granted.ID)
	_, err = l.direct.Put(ctx, key, "v")
	must(t, err)
	_, err = v3electionpb.NewElectionClient(c).Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte(sealedPrefix + "e"), Lease: granted.ID, Value: []byte("v")})
	must(t, err)
	if !envelope.Is(l.stored(t, key)) {
		t.Error("the value is not sealed")
	}
}

// TestElectionErrorsAreEtcds compares with etcd.
func TestElectionErrorsAreEtcds(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	name := []byte(sealedPrefix + "e")
	ours, theirs := v3electionpb.NewElectionClient(l.conn(t)), v3electionpb.NewElectionClient(l.direct.ActiveConnection())
	leader := &v3electionpb.LeaderKey{Name: name, Key: []byte(sealedPrefix + "e/1"), Rev: 3, Lease: 1}
	for what, call := range map[string]func(v3electionpb.ElectionClient) error{
		"Campaign without such a lease": func(e v3electionpb.ElectionClient) error {
			_, err := e.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: 4711, Value: []byte("v")})
			return err
		},
		"Proclaim without a leader": func(e v3electionpb.ElectionClient) error {
			_, err := e.Proclaim(ctx, &v3electionpb.ProclaimRequest{Value: []byte("v")})
			return err
		},
		"Proclaim by another": func(e v3electionpb.ElectionClient) error {
			_, err := e.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("v")})
			return err
		},
		"Resign by another": func(e v3electionpb.ElectionClient) error {
			_, err := e.Resign(ctx, &v3electionpb.ResignRequest{Leader: leader})
			return err
		},
		"Leader of nothing": func(e v3electionpb.ElectionClient) error {
			_, err := e.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
			return err
		},
	} {
		if got, want := call(ours), call(theirs); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, etcd says %v", what, got, want)
		}
	}
}

// TestLock takes, waits for and gives back a lock whose keys are under a rule.
func TestLock(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	lock := v3lockpb.NewLockClient(l.conn(t))
	name := []byte(sealedPrefix + "l")
	held, err := lock.Lock(ctx, &v3lockpb.LockRequest{Name: name})
	must(t, err)
	l.lockInVain(t, lock, name)
	_, err = lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key})
	must(t, err)
	_, err = lock.Lock(ctx, &v3lockpb.LockRequest{Name: name})
	must(t, err)
	if got, err := l.client.Get(ctx, string(held.Key)); err != nil || len(got.Kvs) != 0 {
		t.Errorf("the key of a lock that was given back: %v, %v", got, err)
	}
	// Its key would lie beside the keyring, not in it; but it waits for all keys that
	// begin with a slash.
	l.lockInVain(t, lock, nil)
}

// lockInVain asks for a lock that somebody has, waits until etcd has it in the queue, and
// gives up. Whoever gives up earlier may leave a key in the queue until its lease ends.
func (l *lab) lockInVain(t *testing.T, lock v3lockpb.LockClient, name []byte) {
	t.Helper()
	ctx := bounded(t)
	waiting := func() int64 {
		r, err := l.direct.Get(ctx, string(name)+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		must(t, err)
		return r.Count
	}
	before := waiting()
	call, giveUp := context.WithCancel(ctx)
	defer giveUp()
	ended := make(chan error, 1)
	go func() {
		_, err := lock.Lock(call, &v3lockpb.LockRequest{Name: name})
		ended <- err
	}()
	for waiting() == before {
		select {
		case err := <-ended:
			t.Fatalf("the lock of %q was given, or refused: %v", name, err)
		default:
		}
	}
	giveUp()
	wantStatus(t, <-ended, codes.Canceled)
	for waiting() != before { // etcd takes the key out by itself
	}
}
