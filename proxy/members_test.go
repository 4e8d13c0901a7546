package proxy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// TestAdvertise compares every list of members with etcd's own.
func TestAdvertise(t *testing.T) {
	urls := []string{"http://etcdseal:1", "http://etcdseal:2"}
	l := newLab(t, setup{advertise: urls})
	ctx := bounded(t)
	own, ours := pb.NewClusterClient(l.direct.ActiveConnection()), pb.NewClusterClient(l.conn(t))
	same := func(name string, want, got memberList) {
		t.Helper()
		for _, m := range want.GetMembers() {
			if len(m.ClientURLs) > 0 {
				m.ClientURLs = urls
			}
		}
		if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&pb.ResponseHeader{}, "raft_term", "revision")); diff != "" {
			t.Errorf("%s (-etcd, changed +etcdseal):\n%s", name, diff)
		}
	}
	before, err := own.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	must(t, err)
	if slices.Equal(before.Members[0].ClientURLs, urls) || len(before.Members[0].ClientURLs) == 0 {
		t.Fatalf("etcd says %v", before)
	}
	got, err := ours.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	must(t, err)
	same("MemberList", proto.CloneOf(before), got)

	// Each changes what etcd holds, which is then asked for the same list. A learner
	// that never starts has no say in it.
	added, err := ours.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
	must(t, err)
	list, err := own.MemberList(ctx, &pb.MemberListRequest{})
	must(t, err)
	same("MemberAdd", &pb.MemberAddResponse{Header: added.Header, Member: added.Member, Members: list.Members}, added)
	if len(added.Member.ClientURLs) != 0 || added.Member.PeerURLs[0] != "http://127.0.0.1:1" {
		t.Errorf("a member that has not started: %v", added.Member)
	}
	updated, err := ours.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: added.Member.ID, PeerURLs: []string{"http://127.0.0.1:2"}})
	must(t, err)
	list, err = own.MemberList(ctx, &pb.MemberListRequest{})
	must(t, err)
	same("MemberUpdate", &pb.MemberUpdateResponse{Header: updated.Header, Members: list.Members}, updated)
	_, err = ours.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: added.Member.ID})
	_, want := own.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: added.Member.ID})
	if !proto.Equal(status.Convert(err).Proto(), status.Convert(want).Proto()) || err == nil {
		t.Errorf("promoting: %v, etcd says %v", err, want)
	}
	removed, err := ours.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: added.Member.ID})
	must(t, err)
	same("MemberRemove", &pb.MemberRemoveResponse{Header: removed.Header, Members: before.Members}, removed)

	if answer := l.raw(t, request("POST /v3/cluster/member/list", "{}")); !strings.Contains(answer, urls[0]) || strings.Contains(answer, l.etcdURL) {
		t.Errorf("the JSON API: %s", answer)
	}
}

// memberList is a response that lists members.
type memberList interface {
	proto.Message
	GetMembers() []*pb.Member
}

// TestSync has a client take its endpoints from the cluster. Without an advertised URL
// it leaves the proxy, with one it stays.
func TestSync(t *testing.T) {
	l := newLab(t, setup{})
	must(t, l.client.Sync(bounded(t)))
	if got := l.client.Endpoints(); len(got) != 1 || strings.Contains(got[0], l.address) {
		t.Errorf("without advertising, the endpoints are %v", got)
	}
	l = newLab(t, setup{advertise: []string{"http://etcdseal.invalid:1"}})
	must(t, l.client.Sync(bounded(t)))
	if got := l.client.Endpoints(); !slices.Equal(got, []string{"http://etcdseal.invalid:1"}) {
		t.Errorf("the endpoints are %v", got)
	}
}
