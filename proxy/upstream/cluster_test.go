package upstream

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// member is one embedded etcd.
type member struct {
	*embed.Etcd
	endpoint string
	stop     func() // may be called more than once, unlike Etcd.Close
}

// cluster starts n members that talk to each other over unix sockets, so that no port has to be free, and to clients over TCP. They are closed with the
// test. Change, if not nil, may change a member's configuration.
func cluster(t *testing.T, n int, change func(i int, cfg *embed.Config)) []member {
	t.Helper()
	t.Chdir(t.TempDir())
	initial := ""
	for i := range n {
		initial += fmt.Sprintf("m%d=%s,", i, peer(i))
	}
	members := make([]member, n)
	for i := range members {
		cfg := memberConfig(t, i)
		cfg.InitialCluster = initial[:len(initial)-1]
		if change != nil {
			change(i, cfg)
		}
		members[i] = start(t, cfg)
	}
	for _, m := range members {
		<-m.Server.ReadyNotify()
	}
	return members
}

// peer returns the peer URL of a member: a socket in the current directory, since etcd takes the host of such a URL for the socket's name.
func peer(i int) string { return fmt.Sprintf("unix://m%d:0", i) }

// memberConfig returns the configuration of member i of a new cluster, with its files in the current directory and elections that take a fifth of
// the usual time.
func memberConfig(t *testing.T, i int) *embed.Config {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Name = fmt.Sprintf("m%d", i)
	cfg.Dir = cfg.Name + ".etcd"
	cfg.LogLevel, cfg.LogOutputs = "fatal", []string{os.DevNull}
	cfg.UnsafeNoFsync = true
	cfg.EnableGRPCGateway = false
	cfg.BcryptCost = 4 // the least: the password is no secret
	cfg.TickMs, cfg.ElectionMs = 20, 200
	cfg.ListenPeerUrls = mustURLs(t, peer(i))
	cfg.AdvertisePeerUrls = cfg.ListenPeerUrls
	cfg.ListenClientUrls = mustURLs(t, "http://127.0.0.1:0")
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	return cfg
}

func mustURLs(t *testing.T, raw string) []url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return []url.URL{*u}
}

// start starts a member. It need not be ready.
func start(t *testing.T, cfg *embed.Config) member {
	t.Helper()
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatalf("starting etcd: %v", err)
	}
	stop := sync.OnceFunc(e.Close)
	t.Cleanup(stop)
	return member{Etcd: e, endpoint: cfg.ListenClientUrls[0].Scheme + "://" + e.Clients[0].Addr().String(), stop: stop}
}

// endpoints lists the members' endpoints.
func endpoints(members []member) []string {
	var list []string
	for _, m := range members {
		list = append(list, m.endpoint)
	}
	return list
}

// dialMember returns a plain gRPC client of a member that listens without TLS.
func dialMember(t *testing.T, m member) *grpc.ClientConn {
	t.Helper()
	client, err := grpc.NewClient("passthrough:///"+m.Clients[0].Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// enableAuth creates root with the password "rootpw" and switches authentication on.
func enableAuth(t *testing.T, m member) {
	t.Helper()
	auth := pb.NewAuthClient(dialMember(t, m))
	ctx := t.Context()
	steps := []func() error{
		func() error { _, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "root"}); return err },
		func() error {
			_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "rootpw"})
			return err
		},
		func() error {
			_, err := auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
			return err
		},
		func() error { _, err := auth.AuthEnable(ctx, &pb.AuthEnableRequest{}); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("enabling authentication: %v", err)
		}
	}
}

// newPool returns a pool that is closed with the test.
func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatalf("making pool: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("closing pool: %v", err)
		}
	})
	return p
}

// healths returns the health of each endpoint.
func healths(p *Pool) []Health {
	var list []Health
	for _, s := range p.State() {
		list = append(list, s.Health)
	}
	return list
}

// until probes until the healths are as wanted, or until the test binary's time is over: what changes inside etcd (an election) has no event to wait for.
func until(t *testing.T, p *Pool, want ...Health) {
	t.Helper()
	for !slices.Equal(healths(p), want) {
		p.Probe(t.Context())
	}
}

// dial connects through the pool; the connection is closed with the test.
func dial(t *testing.T, p *Pool) *Conn {
	t.Helper()
	c, err := p.Dial(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatalf("dialing: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
