package difftest

import (
	"context"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// TestEtcdsealEqualsEtcdToThoseWhoMayLittle has half of the calls made by a user who may read and write some keys only, and some by nobody.
func TestEtcdsealEqualsEtcdToThoseWhoMayLittle(t *testing.T) {
	reference, behind := startEtcd(t), startEtcd(t)
	passwordFile := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(passwordFile, []byte("pw"), 0o600))
	for _, url := range []string{reference, behind} {
		enableAuth(t, dial(t, url))
	}
	subject := startEtcdsealWith(t, behind, etcdstore.DefaultPrefix, upstream.Auth{Username: "root", PasswordFile: passwordFile})
	must(t, Run(t.Context(), Config{
		Reference: newUsers(t, reference), Subject: newUsers(t, subject), Sealed: sealed, SealedValueOrder: true,
		Seed: *seed, Operations: *operations / 2, Logf: t.Logf,
	}))
}

// enableAuth makes two users: root, and one with a part of the sealed keys and a part of the others.
func enableAuth(t *testing.T, conn *grpc.ClientConn) {
	ctx, auth := t.Context(), pb.NewAuthClient(conn)
	for _, name := range []string{"root", "some"} {
		_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name, Password: "pw"})
		must(t, err)
		_, err = auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: name})
		must(t, err)
		_, err = auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: name, Role: name})
		must(t, err)
	}
	for _, p := range []*authpb.Permission{
		{PermType: authpb.READWRITE, Key: []byte(sealed + "ns1/"), RangeEnd: []byte(sealed + "ns10")},
		{PermType: authpb.READ, Key: []byte(sealed + "ns2/"), RangeEnd: []byte(sealed + "ns20")},
		{PermType: authpb.WRITE, Key: []byte(sealed + "ns0/"), RangeEnd: []byte(sealed + "ns00")},
		{PermType: authpb.READWRITE, Key: []byte(sealed + "el/a/"), RangeEnd: []byte(sealed + "el/a0")},
		{PermType: authpb.READWRITE, Key: []byte("/registry/configmaps/"), RangeEnd: []byte("/registry/configmaps0")},
	} {
		_, err := auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "some", Perm: p})
		must(t, err)
	}
	_, err := auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	must(t, err)
}

// users is a connection on which a unary call is made by one user or the other, as its request decides, so that it is the same one on both sides.
type users struct {
	*grpc.ClientConn
	tokens map[string]string
}

func newUsers(t *testing.T, url string) users {
	u := users{dial(t, url), map[string]string{}}
	for _, name := range []string{"root", "some"} {
		r, err := pb.NewAuthClient(u.ClientConn).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: name, Password: "pw"})
		must(t, err)
		u.tokens[name] = r.Token
	}
	return u
}

func (u users) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	user := "root"
	if r, ok := in.(*pb.RangeRequest); (!ok || string(r.Key) != "\x00") && !strings.Contains(method, "Lease") {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(in.(proto.Message))
		if err != nil {
			return err
		}
		h := fnv.New32a()
		h.Write(b)
		switch n := h.Sum32() % 40; {
		case n < 20:
			user = "some"
		case n == 20:
			user = "nobody"
		}
	}
	return u.ClientConn.Invoke(u.as(ctx, user), method, in, out, opts...)
}

func (u users) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return u.ClientConn.NewStream(u.as(ctx, "root"), desc, method, opts...)
}

func (u users) as(ctx context.Context, user string) context.Context {
	if token := u.tokens[user]; token != "" {
		return metadata.AppendToOutgoingContext(ctx, "token", token)
	}
	return ctx
}
