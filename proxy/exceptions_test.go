package proxy_test

import (
	"context"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
)

// verdict is what becomes of a call, or of an option of one.
type verdict string

const (
	same     verdict = "same as etcd"
	assisted verdict = "assisted" // answered as etcd would, by more than one call to it
	refused  verdict = "refused"
)

// exception is where etcdseal does not just let etcd answer. Everything else is the
// same as etcd.
type exception struct {
	// what is a method's path, a field as message.field, or a value of one as
	// message.field=VALUE.
	what    string
	where   string
	verdict verdict
	because string
	// The call shows it: one that is refused fails with the code and the beginning of
	// a text, any other succeeds.
	method  string
	request proto.Message
	code    codes.Code
	text    string
}

// exceptions is all of them, but for the reserved prefix, which reservedRequests is
// about.
var exceptions = []exception{
	{
		what: "etcdserverpb.Compare.target=VALUE", where: "keys under a rule", verdict: assisted,
		because: "etcd would compare envelopes",
		method:  "/etcdserverpb.KV/Txn", request: &pb.TxnRequest{Compare: []*pb.Compare{
			{Key: []byte(sealedPrefix + "a"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("x")}}}},
	},
	{
		what: "etcdserverpb.RangeRequest.sort_target=VALUE", where: "a Range of more than one key, some under a rule", verdict: assisted,
		because: "etcd would sort envelopes",
		method:  "/etcdserverpb.KV/Range", request: &pb.RangeRequest{Key: []byte(sealedPrefix), RangeEnd: []byte{0},
			SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_DESCEND},
	},
	{
		what: "etcdserverpb.RangeRequest.sort_target=VALUE", where: "a RangeStream of more than one key, some under a rule, without a sort_order", verdict: refused,
		because: "etcd sorts each part of the answer by itself, and leaves out keys", code: codes.Unimplemented, text: "RangeStream does not support custom sort orders",
		method: "/etcdserverpb.KV/RangeStream", request: &pb.RangeRequest{Key: []byte(sealedPrefix), RangeEnd: []byte{0}, SortTarget: pb.RangeRequest_VALUE},
	},
	{
		what: "/v3electionpb.Election/Campaign", where: "keys under a rule", verdict: assisted,
		because: "the value is sealed for the key that etcd will make of the lease",
		method:  "/v3electionpb.Election/Campaign", request: &v3electionpb.CampaignRequest{Name: []byte(sealedPrefix + "e"), Value: []byte("x")},
	},
}

// reservedRequests writes under the reserved prefix by every method that can.
var reservedRequests = map[string]proto.Message{
	"/etcdserverpb.KV/Put":         &pb.PutRequest{Key: []byte(reservedKey)},
	"/etcdserverpb.KV/DeleteRange": &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}},
	"/etcdserverpb.KV/Txn": &pb.TxnRequest{Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(reservedKey)}}}}}}}}},
	"/v3electionpb.Election/Campaign": &v3electionpb.CampaignRequest{Name: []byte(reservedKey)},
	"/v3electionpb.Election/Proclaim": &v3electionpb.ProclaimRequest{Leader: &v3electionpb.LeaderKey{Name: []byte("a"), Key: []byte(reservedKey)}},
	"/v3electionpb.Election/Resign":   &v3electionpb.ResignRequest{Leader: &v3electionpb.LeaderKey{Name: []byte("a"), Key: []byte(reservedKey)}},
	"/v3lockpb.Lock/Lock":             &v3lockpb.LockRequest{Name: []byte(reservedKey)},
	"/v3lockpb.Lock/Unlock":           &v3lockpb.UnlockRequest{Key: []byte(reservedKey)},
}

const reservedKey = etcdstore.DefaultPrefix + "a"

// remarks is what a client should know of methods that are the same as etcd's.
var remarks = map[string]string{
	"/etcdserverpb.Maintenance/Snapshot": "of what is stored: ciphertext under a rule, and the keyring",
	"/etcdserverpb.Maintenance/Hash":     "of what is stored: ciphertext under a rule",
	"/etcdserverpb.Maintenance/HashKV":   "of what is stored: ciphertext under a rule",
	"/etcdserverpb.Cluster/MemberList":   "names the members' own addresses unless `listen.advertise` is set: a client that connects to them goes past etcdseal",
	"/etcdserverpb.KV/RangeStream":       "Unimplemented, as etcd's own answer, from etcd 3.6 and earlier",
}

// TestExceptions makes every call that the document says is not just passed on.
func TestExceptions(t *testing.T) {
	conn := newLab(t, setup{}).conn(t)
	for _, e := range exceptions {
		err := invoke(bounded(t), conn, e.method, e.request)
		st := status.Convert(err)
		if e.verdict == refused && (st.Code() != e.code || !strings.HasPrefix(st.Message(), e.text)) || e.verdict == assisted && err != nil {
			t.Errorf("%s, %s, is said to be %s: %v", e.what, e.where, e.verdict, err)
		}
	}
	for path, request := range reservedRequests {
		err := invoke(bounded(t), conn, path, request)
		if status.Code(err) != codes.PermissionDenied || !strings.HasPrefix(status.Convert(err).Message(), "etcdseal: ") {
			t.Errorf("%s under the reserved prefix: %v", path, err)
		}
	}
}

// invoke calls a method and drops what it answers.
func invoke(ctx context.Context, conn *grpc.ClientConn, path string, request proto.Message) error {
	desc := &grpc.StreamDesc{ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, path)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	_ = stream.CloseSend()
	return stream.RecvMsg(newMessage(method(path).Output()))
}
