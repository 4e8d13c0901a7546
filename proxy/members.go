package proxy

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// memberLists make the responses that list the cluster's members, by method.
var memberLists = map[string]func() memberList{
	pb.Cluster_MemberAdd_FullMethodName:     func() memberList { return new(pb.MemberAddResponse) },
	pb.Cluster_MemberRemove_FullMethodName:  func() memberList { return new(pb.MemberRemoveResponse) },
	pb.Cluster_MemberUpdate_FullMethodName:  func() memberList { return new(pb.MemberUpdateResponse) },
	pb.Cluster_MemberList_FullMethodName:    func() memberList { return new(pb.MemberListResponse) },
	pb.Cluster_MemberPromote_FullMethodName: func() memberList { return new(pb.MemberPromoteResponse) },
}

// memberList is such a response.
type memberList interface {
	proto.Message
	GetMembers() []*pb.Member
}

// members is the codec of a call whose response lists members: the client URLs of
// each are replaced by those that lead to the proxy, so that a client which takes its
// endpoints from there stays with it. A member that has not started has none, and
// keeps none. Peer URLs, by which members join, and all else stay.
type members struct {
	session *session
	method  wire.Method
}

// Rewrite implements relay.Codec.
func (c *members) Rewrite(d relay.Direction, msg, _ []byte) relay.Verdict {
	if d == relay.Request {
		return relay.Verdict{Msg: msg}
	}
	list := memberLists[c.method.Path]()
	if err := proto.Unmarshal(msg, list); err != nil {
		return refuse(refusal(codes.DataLoss, "etcd's answer cannot be read: %v", err))
	}
	for _, m := range list.GetMembers() {
		c.replace(m)
	}
	if added, ok := list.(*pb.MemberAddResponse); ok {
		c.replace(added.GetMember())
	}
	out, err := proto.Marshal(list)
	if err != nil {
		return refuse(refusal(codes.DataLoss, "etcd's answer cannot be written: %v", err))
	}
	return relay.Verdict{Msg: out}
}

func (c *members) replace(m *pb.Member) {
	if len(m.GetClientURLs()) > 0 {
		m.ClientURLs = c.session.server.advertise
	}
}

// Wait implements relay.Codec. Nothing is ever parked.
func (c *members) Wait(_ context.Context, d relay.Direction, msg []byte) relay.Verdict {
	return c.Rewrite(d, msg, nil)
}

// Lane implements relay.Codec.
func (c *members) Lane(relay.Direction, []byte) (int64, bool) { return 0, true }
