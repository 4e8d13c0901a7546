package upstream

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
)

func TestStateOfRealMembers(t *testing.T) {
	members := cluster(t, 3, nil)
	p := newPool(t, Config{Endpoints: endpoints(members)})
	if diff := cmp.Diff([]Health{Unknown, Unknown, Unknown}, healths(p)); diff != "" {
		t.Errorf("before a probe (-want +got):\n%s", diff)
	}
	if err := p.Ready(t.Context()); err == nil {
		t.Error("ready before a probe")
	}
	until(t, p, Healthy, Healthy, Healthy)
	if err := p.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	leaders := 0
	for i, s := range p.State() {
		if s.Endpoint != members[i].endpoint || s.MemberID != uint64(members[i].Server.MemberID()) || s.ClusterID == 0 || s.Version == "" || s.Probed.IsZero() || s.DBSize < s.DBInUse || s.DBInUse == 0 || s.DBQuota < s.DBSize {
			t.Errorf("state of member %d: %+v", i, s)
		}
		if s.IsLeader {
			leaders++
		}
	}
	if leaders != 1 {
		t.Errorf("%d leaders, want 1", leaders)
	}
}

// A member that stops: its connections drain to the healthy ones, new ones avoid it. When the second stops, the third has no leader.
func TestMembersStop(t *testing.T) {
	members := cluster(t, 3, nil)
	p := newPool(t, Config{Endpoints: endpoints(members)})
	until(t, p, Healthy, Healthy, Healthy)
	conns := make(map[string]*Conn)
	for range 3 {
		c := dial(t, p)
		conns[c.Endpoint()] = c
	}
	if len(conns) != 3 {
		t.Fatalf("3 connections went to %d members", len(conns))
	}

	stop(t, members[0], conns)
	p.Probe(t.Context())
	if got := healths(p)[0]; got != Suspect {
		t.Errorf("after one failed probe: got %s, want suspect", got)
	}
	mustNotDrain(t, conns[members[0].endpoint])
	until(t, p, Dead, Healthy, Healthy)
	<-conns[members[0].endpoint].Drain()
	mustNotDrain(t, conns[members[1].endpoint])
	for range 4 {
		c := dial(t, p)
		if c.Endpoint() == members[0].endpoint {
			t.Error("a new connection went to the dead member")
		}
		_ = c.Close()
	}

	stop(t, members[1], conns)
	until(t, p, Dead, Dead, Leaderless)
	if err := p.Ready(t.Context()); err == nil {
		t.Error("ready without a leader")
	}
	mustNotDrain(t, conns[members[2].endpoint]) // there is no better place
	if c := dial(t, p); c.Endpoint() != members[2].endpoint {
		t.Errorf("dialed %s, want the member that answers", c.Endpoint())
	}
}

// stop stops a member. Its end of the connection is cut first, without telling the pool, since etcd does not stop while a connection has not shown yet what it
// speaks.
func stop(t *testing.T, m member, conns map[string]*Conn) {
	t.Helper()
	if err := conns[m.endpoint].Conn.Close(); err != nil {
		t.Fatal(err)
	}
	m.stop()
}

func mustNotDrain(t *testing.T, c *Conn) {
	t.Helper()
	select {
	case <-c.Drain():
		t.Errorf("the connection to %s is told to drain", c.Endpoint())
	default:
	}
}

func TestLearnerIsAvoided(t *testing.T) {
	for name, auth := range map[string]bool{"asked for its status": false, "asked by a stranger": true} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			first := memberConfig(t, 0)
			first.InitialCluster = "m0=" + peer(0)
			voter := start(t, first)
			<-voter.Server.ReadyNotify()
			_, err := pb.NewClusterClient(dialMember(t, voter)).MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{peer(1)}, IsLearner: true})
			if err != nil {
				t.Fatalf("adding learner: %v", err)
			}
			second := memberConfig(t, 1)
			second.ClusterState = embed.ClusterStateFlagExisting
			second.InitialCluster = "m0=" + peer(0) + ",m1=" + peer(1)
			learner := start(t, second)
			<-learner.Server.ReadyNotify()
			if auth {
				enableAuth(t, voter)
			}

			p := newPool(t, Config{Endpoints: []string{learner.endpoint, voter.endpoint}})
			early := dial(t, p) // nothing is known yet: the first one is taken
			if early.Endpoint() != learner.endpoint {
				t.Fatalf("dialed %s", early.Endpoint())
			}
			until(t, p, Learner, Healthy)
			<-early.Drain()
			for range 3 {
				if c := dial(t, p); c.Endpoint() != voter.endpoint {
					t.Error("a new connection went to the learner")
				}
			}
		})
	}
}

func TestToken(t *testing.T) {
	members := cluster(t, 1, nil)
	passwordFile := filepath.Join(t.TempDir(), "password")
	writePassword(t, passwordFile, "rootpw\n")
	observer := newObserver()
	p := newPool(t, Config{
		Endpoints: endpoints(members), Observer: observer,
		Auth: Auth{Username: "root", PasswordFile: passwordFile},
	})
	if token, err := p.Token(t.Context()); err != nil || token != "" {
		t.Errorf("without authentication: got %q, %v; want none", token, err)
	}
	until(t, p, Healthy)

	enableAuth(t, members[0])
	p.Probe(t.Context()) // finds that a token is needed, and gets one
	first, err := p.Token(t.Context())
	if err != nil || first == "" {
		t.Fatalf("with authentication: got %q, %v", first, err)
	}
	if state := p.State()[0]; state.Health != Healthy || state.Version == "" {
		t.Errorf("state with a token: %+v", state)
	}
	again, err := p.Token(t.Context())
	if err != nil || again != first {
		t.Errorf("the token was not kept: %v", err)
	}
	p.Invalidate("another")
	if again, err = p.Token(t.Context()); err != nil || again != first {
		t.Errorf("the token was dropped for another's sake: %v", err)
	}
	p.Invalidate(first)
	second, err := p.Token(t.Context())
	if err != nil || second == first {
		t.Errorf("after Invalidate: the same token, %v", err)
	}
	_, err = pb.NewKVClient(dialMember(t, members[0])).Range(withToken(t.Context(), second), &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		t.Errorf("using the token: %v", err)
	}
}

func writePassword(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Without a right to ask, an endpoint is judged by what etcd tells everybody.
func TestHealthWithoutTheRightToAsk(t *testing.T) {
	members := cluster(t, 1, nil)
	enableAuth(t, members[0])
	wrong := filepath.Join(t.TempDir(), "password")
	writePassword(t, wrong, "wrong")
	for name, auth := range map[string]Auth{"no user": {}, "wrong password": {Username: "root", PasswordFile: wrong}} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, Config{Endpoints: endpoints(members), Auth: auth})
			p.Probe(t.Context())
			if state := p.State()[0]; state.Health != Healthy || state.Version != "" {
				t.Errorf("state: %+v, want healthy by a stranger's probe", state)
			}
			if err := p.Ready(t.Context()); err != nil {
				t.Errorf("not ready: %v", err)
			}
		})
	}
}

func TestLeaderlessWithoutTheRightToAsk(t *testing.T) {
	members := cluster(t, 2, nil)
	enableAuth(t, members[0])
	p := newPool(t, Config{Endpoints: endpoints(members)})
	until(t, p, Healthy, Healthy)
	members[0].stop()
	until(t, p, Dead, Leaderless)
}

// The password is read anew at each login, and a refusal is remembered for a while.
func TestWrongPassword(t *testing.T) {
	members := cluster(t, 1, nil)
	enableAuth(t, members[0])
	passwordFile := filepath.Join(t.TempDir(), "password")
	writePassword(t, passwordFile, "wrong")
	clock := newClock()
	p := newPool(t, Config{Endpoints: endpoints(members), Now: clock.now, Auth: Auth{Username: "root", PasswordFile: passwordFile}})
	if _, err := p.Token(t.Context()); err == nil {
		t.Fatal("a wrong password was accepted")
	}
	writePassword(t, passwordFile, "rootpw\r\n")
	clock.advance(refusalTerm - 1)
	if _, err := p.Token(t.Context()); err == nil {
		t.Error("a refused login was tried again too early")
	}
	clock.advance(1)
	if token, err := p.Token(t.Context()); err != nil || token == "" {
		t.Errorf("with the right password: got %q, %v", token, err)
	}
}
