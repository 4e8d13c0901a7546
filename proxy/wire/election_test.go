package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"
)

func TestElectionAndLock(t *testing.T) {
	leader := &v3electionpb.LeaderKey{Name: []byte("ignored"), Key: []byte("/e/key"), Lease: 5}
	for _, c := range []struct {
		m     Message
		p     proto.Message
		want  Op
		value string // the key of the value
	}{
		{CampaignRequest, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 0x7f, Value: []byte("v")},
			Op{Kind: OpPut, Key: []byte("e/7f"), Name: []byte("e"), Lease: 0x7f}, "e/7f"},
		{CampaignRequest, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: -1},
			Op{Kind: OpPut, Key: []byte("e/-1"), Name: []byte("e"), Lease: -1}, "e/-1"},
		{CampaignRequest, &v3electionpb.CampaignRequest{Name: []byte("e")},
			Op{Kind: OpPut, Key: []byte("e/"), End: []byte("e0"), Name: []byte("e")}, ""},
		{ProclaimRequest, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("v")},
			Op{Kind: OpPut, Key: []byte("/e/key"), Lease: 5}, "/e/key"},
		{ProclaimRequest, &v3electionpb.ProclaimRequest{}, Op{Kind: OpPut}, ""},
		{ResignRequest, &v3electionpb.ResignRequest{Leader: leader}, Op{Kind: OpDelete, Value: -1, Key: []byte("/e/key"), Lease: 5}, ""},
		{LeaderRequest, &v3electionpb.LeaderRequest{Name: []byte("e")},
			Op{Kind: OpRange, Value: -1, Key: []byte("e/"), End: []byte("e0"), Name: []byte("e")}, ""},
		{LockRequest, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 0xabc},
			Op{Kind: OpPut, Value: -1, Key: []byte("l/abc"), Name: []byte("l"), Lease: 0xabc}, ""},
		{LockRequest, &v3lockpb.LockRequest{}, Op{Kind: OpPut, Value: -1, Key: []byte("/"), End: []byte("0")}, ""},
		{UnlockRequest, &v3lockpb.UnlockRequest{Key: []byte("any")}, Op{Kind: OpDelete, Value: -1, Key: []byte("any")}, ""},
	} {
		s := parse(t, c.m, marshal(t, c.p))
		if diff := cmp.Diff([]Op{c.want}, s.Ops); diff != "" {
			t.Errorf("%v: ops (-want +got):\n%s", c.p, diff)
		}
		if len(s.Values) == 1 && string(s.Values[0].Key) != c.value {
			t.Errorf("%v: value of key %q, want %q", c.p, s.Values[0].Key, c.value)
		}
	}
}

// TestWatchMessages checks the messages that a proxy makes itself by what the
// generated code reads in them.
func TestWatchMessages(t *testing.T) {
	for _, id := range []int64{0, 1, 300, -1} {
		got := new(etcdserverpb.WatchRequest)
		if err := proto.Unmarshal(AppendWatchCancelRequest(nil, id), got); err != nil {
			t.Fatal(err)
		}
		want := &etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CancelRequest{
			CancelRequest: &etcdserverpb.WatchCancelRequest{WatchId: id},
		}}
		if !proto.Equal(got, want) {
			t.Errorf("cancel request %v, want %v", got, want)
		}
		h := Header{ClusterID: 1 << 63, MemberID: 1<<64 - 1, Revision: -5, RaftTerm: 1 << 62}
		answer := new(etcdserverpb.WatchResponse)
		if err := proto.Unmarshal(AppendCanceledWatchResponse(nil, h, id, "bad \xff key"), answer); err != nil {
			t.Fatal(err)
		}
		wantAnswer := &etcdserverpb.WatchResponse{
			Header:  &etcdserverpb.ResponseHeader{ClusterId: 1 << 63, MemberId: 1<<64 - 1, Revision: -5, RaftTerm: 1 << 62},
			WatchId: id, Canceled: true, CancelReason: "bad \uFFFD key",
		}
		if !proto.Equal(answer, wantAnswer) {
			t.Errorf("response %v, want %v", answer, wantAnswer)
		}
	}
}
