package difftest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// arrived is a call as etcd's server got it.
type arrived struct {
	method   string
	md       metadata.MD
	deadline time.Duration // that was left; 0 without one
	ended    <-chan struct{}
}

// recorded starts an etcd that tells of calls which bear the metadata "recorded".
func recorded(t *testing.T) (string, <-chan arrived) {
	t.Helper()
	calls := make(chan arrived, 100)
	record := func(ctx context.Context, method string) {
		md, _ := metadata.FromIncomingContext(ctx)
		if len(md["recorded"]) == 0 {
			return
		}
		a := arrived{method: method, md: md.Copy(), ended: ctx.Done()}
		if at, ok := ctx.Deadline(); ok {
			a.deadline = time.Until(at)
		}
		calls <- a
	}
	return startEtcd(t, func(cfg *embed.Config) {
		cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{
			grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				record(ctx, info.FullMethod)
				return handle(ctx, req)
			}),
			grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
				record(stream.Context(), info.FullMethod)
				return handle(srv, stream)
			}),
		}
	}), calls
}

// dialAs is dial with an authority that is the same for both sides.
func dialAs(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("etcd"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	must(t, err)
	t.Cleanup(func() { closeConn(conn) })
	return conn
}

// TestMetadataArrives compares what etcd sees of a call made directly with what it sees
// of the same call through etcdseal: methods that are rewritten, passed and streamed.
func TestMetadataArrives(t *testing.T) {
	etcd, calls := recorded(t)
	direct, proxied := dialAs(t, etcd), dialAs(t, startEtcdseal(t, etcd))
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	md := metadata.Pairs("recorded", "1", "hasleader", "true", "client-api-version", "3.7", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"authorization", "Basic eDp5", "repeated", "a", "repeated", "b", "empty", "", "spaces", "a b  c", "x-bin", string(binary), "x-bin", "", "y-bin", "\x00")
	key := []byte(sealed + "a")
	for name, call := range map[string]func(context.Context, *grpc.ClientConn) error{
		"Put": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewKVClient(c).Put(ctx, &pb.PutRequest{Key: key, Value: []byte("v")})
			return err
		},
		"Range": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: key})
			return err
		},
		"Txn": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewKVClient(c).Txn(ctx, &pb.TxnRequest{})
			return err
		},
		"MemberList": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewClusterClient(c).MemberList(ctx, &pb.MemberListRequest{})
			return err
		},
		"Watch": func(ctx context.Context, c *grpc.ClientConn) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := pb.NewWatchClient(c).Watch(ctx)
			if err == nil {
				err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: key}}})
			}
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"LeaseKeepAlive": func(ctx context.Context, c *grpc.ClientConn) error {
			stream, err := pb.NewLeaseClient(c).LeaseKeepAlive(ctx)
			if err == nil {
				err = stream.Send(&pb.LeaseKeepAliveRequest{ID: 1})
			}
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			const left = 45 * time.Second
			var seen [2]arrived
			for i, c := range []*grpc.ClientConn{direct, proxied} {
				ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(t.Context(), md), left)
				defer cancel()
				must(t, call(ctx, c))
				seen[i] = <-calls
				if d := seen[i].deadline; d > left || d < left-15*time.Second {
					t.Errorf("side %d: %v is left of %v", i, d, left)
				}
				// What a client accepts compressed is not asked of etcd where answers are
				// rewritten.
				maps.DeleteFunc(seen[i].md, func(name string, _ []string) bool { return name == "grpc-accept-encoding" })
			}
			if diff := cmp.Diff(seen[0].md, seen[1].md); diff != "" || seen[0].method != seen[1].method {
				t.Errorf("%s, %s (-direct +through etcdseal):\n%s", seen[0].method, seen[1].method, diff)
			}
			if len(seen[1].md["x-bin"]) != 2 || seen[1].md["x-bin"][0] != string(binary) {
				t.Error("binary metadata has changed")
			}
		})
	}
}

// TestCancellationArrives ends calls at the client and sees them end in etcd, with the
// same status here.
func TestCancellationArrives(t *testing.T) {
	etcd, calls := recorded(t)
	conn := dial(t, startEtcdseal(t, etcd))
	held, err := v3lockpb.NewLockClient(conn).Lock(t.Context(), &v3lockpb.LockRequest{Name: []byte("lock")})
	must(t, err)
	if len(held.Key) == 0 {
		t.Fatal("no lock")
	}
	wait := map[string]func(context.Context) error{
		"a call that waits": func(ctx context.Context) error {
			_, err := v3lockpb.NewLockClient(conn).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock")})
			return err
		},
		"a watch": func(ctx context.Context) error {
			stream, err := pb.NewWatchClient(conn).Watch(ctx)
			for err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	}
	for name, call := range wait {
		for how, want := range map[string]codes.Code{"cancelled": codes.Canceled, "out of time": codes.DeadlineExceeded} {
			t.Run(name+" "+how, func(t *testing.T) {
				ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "recorded", "1"))
				if how == "out of time" { // but not before the call is there
					ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
				}
				defer cancel()
				got := make(chan error, 1)
				go func() { got <- call(ctx) }()
				var there arrived
				select {
				case there = <-calls:
				case err := <-got:
					t.Fatalf("the call ended before it was in etcd: %v", err)
				}
				if how == "cancelled" {
					cancel()
				}
				if err := <-got; status.Code(err) != want {
					t.Errorf("got %v, want %v", err, want)
				}
				select {
				case <-there.ended:
				case <-time.After(30 * time.Second):
					t.Error("the call goes on in etcd")
				}
			})
		}
	}
}

// TestAuthEqualsEtcd switches etcd's authentication on and compares what callers with
// every kind of token get, from a plain etcd and through etcdseal.
func TestAuthEqualsEtcd(t *testing.T) {
	sides := [2]*authSide{newAuthSide(t, startEtcd(t)), newAuthSide(t, startEtcdsealWith(t, startEtcd(t), "", upstream.Auth{}))}
	key, other := []byte(sealed+"a"), []byte("/other/a")
	calls := map[string]func(context.Context, *grpc.ClientConn) (any, error){
		"Put": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).Put(ctx, &pb.PutRequest{Key: key, Value: []byte("v"), PrevKv: true})
		},
		"Put elsewhere": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).Put(ctx, &pb.PutRequest{Key: other, Value: []byte("v")})
		},
		"Range": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: key})
		},
		"Range of all": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		},
		"RangeStream": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			stream, err := pb.NewKVClient(c).RangeStream(ctx, &pb.RangeRequest{Key: key})
			if err != nil {
				return nil, err
			}
			return stream.Recv()
		},
		"DeleteRange": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(sealed + "b"), PrevKv: true})
		},
		"Txn": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}}})
		},
		"Watch": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			stream, err := pb.NewWatchClient(c).Watch(ctx)
			if err != nil {
				return nil, err
			}
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: key}}}); err != nil {
				return nil, err
			}
			return stream.Recv()
		},
		"UserList": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewAuthClient(c).UserList(ctx, &pb.AuthUserListRequest{})
		},
		"Snapshot": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			stream, err := pb.NewMaintenanceClient(c).Snapshot(ctx, &pb.SnapshotRequest{})
			if err != nil {
				return nil, err
			}
			if _, err = stream.Recv(); err == nil {
				err = stream.CloseSend()
			}
			return nil, err // two databases are not alike
		},
		"too large": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).Put(ctx, &pb.PutRequest{Key: other, Value: make([]byte, 1800<<10)})
		},
		"far too large": func(ctx context.Context, c *grpc.ClientConn) (any, error) {
			return pb.NewKVClient(c).Put(ctx, &pb.PutRequest{Key: other, Value: make([]byte, 5<<20)})
		},
	}
	for _, user := range []string{"root", "reader", "nobody", "a wrong token"} {
		for name, call := range calls {
			var got [2]string
			for i, side := range sides {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if token := side.tokens[user]; token != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
				}
				answer, err := call(ctx, side.conn)
				got[i] = describeAuth(answer, err)
				cancel()
			}
			if got[0] != got[1] {
				t.Errorf("%s as %s: etcd says\n%.500s\netcdseal\n%.500s", name, user, got[0], got[1])
			}
			if user != "root" && strings.Contains(name, "Put") && strings.HasPrefix(got[0], "OK") {
				t.Errorf("%s may put", user)
			}
		}
	}
}

// authSide is one of two servers with users.
type authSide struct {
	conn   *grpc.ClientConn
	tokens map[string]string // by user
}

func newAuthSide(t *testing.T, endpoint string) *authSide {
	t.Helper()
	s := &authSide{conn: dial(t, endpoint), tokens: map[string]string{"a wrong token": "wrong.1"}}
	auth, ctx := pb.NewAuthClient(s.conn), t.Context()
	for _, user := range []string{"root", "reader"} {
		_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: user, Password: "p"})
		must(t, err)
	}
	_, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "reads"})
	must(t, err)
	_, err = auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "reads", Perm: &authpb.Permission{
		PermType: authpb.Permission_READ, Key: []byte(sealed), RangeEnd: []byte("/registry/secrets0"),
	}})
	must(t, err)
	for user, role := range map[string]string{"root": "root", "reader": "reads"} {
		_, err := auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: user, Role: role})
		must(t, err)
	}
	_, err = auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	must(t, err)
	for _, user := range []string{"root", "reader"} {
		r, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: user, Password: "p"})
		must(t, err)
		s.tokens[user] = r.Token
	}
	return s
}

// describeAuth is an answer without what no two clusters have alike.
func describeAuth(answer any, err error) string {
	if err != nil {
		st := status.Convert(err)
		return fmt.Sprintf("%v %s", st.Code(), st.Message())
	}
	if h, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		h.GetHeader().ClusterId, h.GetHeader().MemberId, h.GetHeader().RaftTerm = 0, 0, 0
	}
	if chunk, ok := answer.(*pb.RangeStreamResponse); ok {
		if h := chunk.GetRangeResponse().GetHeader(); h != nil {
			h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
		}
	}
	return fmt.Sprintf("OK %v", answer)
}
