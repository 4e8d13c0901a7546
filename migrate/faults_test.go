package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/migrate"
)

// TestLostAnswers has every first answer lost though the transaction was carried out. What
// was done that way counts, and is looked at once more.
func TestLostAnswers(t *testing.T) {
	l := newLab(t)
	want := l.fill(350)
	lose := func(kv clientv3.KV) *hooked {
		return &hooked{KV: kv, after: func(n int) error {
			if n%2 == 1 {
				return rpctypes.ErrTimeout
			}
			return nil
		}}
	}
	done := l.run(l.engine(l.process(), true, func(c *migrate.Config) { c.KV = lose(l.client) }), migrate.Job{Kind: migrate.Encrypt})
	if done.Changed != 350 || done.Done != 350 || done.Passes < 2 {
		t.Errorf("encrypt: %+v", done)
	}
	back := l.run(l.engine(l.process(), false, func(c *migrate.Config) { c.KV = lose(l.client) }), migrate.Job{Kind: migrate.Decrypt})
	if back.Done != 350 || back.Passes < 2 {
		t.Errorf("decrypt: %+v", back)
	}
	if got, sealed := l.values(l.process()); sealed != 0 || !cmp.Equal(want, got) {
		t.Errorf("%d are sealed", sealed)
	}
}

// TestSecondPass writes plaintext behind a pass: the next one finds it among all the keys
// whose values it need not read.
func TestSecondPass(t *testing.T) {
	l := newLab(t)
	l.fill(900)
	reads := &reading{KV: l.client}
	e := l.engine(l.process(), true, func(c *migrate.Config) {
		c.KV = reads
		c.Progress = func(p migrate.Progress) {
			if p.Pass == 1 && p.Scanned == p.Total {
				l.put(prefix+"ns/00000", "behind")
				l.put(prefix+"ns/00500", "behind")
				l.put(prefix+"ns/99999", "behind")
			}
		}
	})
	done := l.run(e, migrate.Job{Kind: migrate.Encrypt})
	if _, sealed := l.values(l.process()); sealed != 901 || done.Keys != 901 || done.Done != 901 {
		t.Errorf("%d are sealed: %+v", sealed, done)
	}
	// Those between the first and the last that are not known are read, too.
	if reads.values > 2*901+3 || reads.serializable == 0 {
		t.Errorf("%d values were read, %d times without a quorum", reads.values, reads.serializable)
	}
}

// reading counts what is read.
type reading struct {
	clientv3.KV
	values       int64
	serializable int
	behind       int // so many serializable reads meet a member that is behind
}

func (r *reading) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	op := clientv3.OpGet(key, opts...)
	if op.IsSerializable() {
		r.serializable++
		if r.behind > 0 {
			r.behind--
			return nil, rpctypes.ErrFutureRev
		}
	}
	answer, err := r.KV.Get(ctx, key, opts...)
	if err == nil && !op.IsKeysOnly() {
		r.values += int64(len(answer.Kvs))
	}
	return answer, err
}

// TestBehind reads from members that have not got to the pinned revision.
func TestBehind(t *testing.T) {
	l := newLab(t)
	l.fill(100)
	reads := &reading{KV: l.client, behind: 3}
	if done := l.run(l.engine(l.process(), true, func(c *migrate.Config) { c.KV = reads }), migrate.Job{Kind: migrate.Encrypt}); done.Changed != 100 {
		t.Errorf("%+v", done)
	}
}

// TestRealQuota fills an etcd with a small quota until it is near, and until it is full.
func TestRealQuota(t *testing.T) {
	l := newLab(t, func(c *embed.Config) { c.QuotaBackendBytes = 64 << 20 })
	for i := range 30 {
		l.put(fmt.Sprintf("%s%02d", prefix, i), strings.Repeat("x", 1<<20))
	}
	result, err := l.engine(l.process(), true).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	if !errors.Is(err, migrate.ErrQuota) || result.Changed == 0 || result.Changed == 30 {
		t.Fatalf("%d changed, %v", result.Changed, err)
	}
	contains(t, err, "run this again")
	// Nobody looks: etcd itself says no, and raises its alarm.
	blind := func(c *migrate.Config) { c.Maintenance = nil }
	for range 2 {
		l.put("/other", strings.Repeat("x", 1<<20))
	}
	for err = error(nil); err == nil; {
		_, err = l.client.Put(t.Context(), "/other", strings.Repeat("x", 1<<20))
	}
	for _, change := range []func(*migrate.Config){blind, func(*migrate.Config) {}} {
		if _, err = l.engine(l.process(), true, change).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt}); !errors.Is(err, migrate.ErrQuota) {
			t.Errorf("with the alarm: %v", err)
		}
		contains(t, err, "alarm disarm")
	}
	if _, err := l.engine(l.process(), true).Purge(t.Context(), l.client); err != nil {
		t.Fatal(err)
	}
	if _, err := l.client.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	rest, err := l.engine(l.process(), true).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	if err != nil && !errors.Is(err, migrate.ErrQuota) || rest.Changed == 0 {
		t.Errorf("after a purge: %+v, %v", rest, err)
	}
}

// TestPermission has a user of etcd who may write a part of the keys only, and one who may
// not read.
func TestPermission(t *testing.T) {
	l := newLab(t)
	l.fill(30)
	p := l.process()
	root := l.client
	for _, err := range []error{
		second(root.RoleAdd(t.Context(), "root")), second(root.UserAdd(t.Context(), "root", "r")), second(root.UserGrantRole(t.Context(), "root", "root")),
		second(root.RoleAdd(t.Context(), "half")), second(root.UserAdd(t.Context(), "half", "h")), second(root.UserGrantRole(t.Context(), "half", "half")),
		second(root.RoleGrantPermission(t.Context(), "half", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermRead))),
		second(root.RoleGrantPermission(t.Context(), "half", "/etcdseal/", clientv3.GetPrefixRangeEnd("/etcdseal/"), clientv3.PermissionType(clientv3.PermRead))),
		second(root.RoleGrantPermission(t.Context(), "half", prefix+"ns/0001", prefix+"ns/0002", clientv3.PermissionType(clientv3.PermReadWrite))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.sealer.Key(t.Context()); err != nil { // its record is written before the doors close
		t.Fatal(err)
	}
	if _, err := root.AuthEnable(t.Context()); err != nil {
		t.Fatal(err)
	}
	as := func(user, password string) *clientv3.Client {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{l.endpoint}, Username: user, Password: password, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	result, err := l.engine(p, true, func(c *migrate.Config) { c.KV, c.Maintenance = as("half", "h"), nil }).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	if err != nil || result.Changed != 10 || len(result.Problems) != 20 || result.Clean() {
		t.Fatalf("%+v, %v", result, err)
	}
	contains(t, result.Problems[0].Err, "may not write")
	if _, err := as("root", "r").RoleRevokePermission(t.Context(), "half", prefix, clientv3.GetPrefixRangeEnd(prefix)); err != nil {
		t.Fatal(err)
	}
	_, err = l.engine(p, true, func(c *migrate.Config) { c.KV, c.Maintenance = as("half", "h"), nil }).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	contains(t, err, "permission denied")
	if _, err := as("root", "r").AuthDisable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rest := l.run(l.engine(p, true), migrate.Job{Kind: migrate.Encrypt}); rest.Changed != 20 {
		t.Errorf("%+v", rest)
	}
}

func second[T any](_ T, err error) error { return err }

// TestKEKLostInTheMiddle loses the KEK after the first of two DEKs was unwrapped: the run
// stops, what it has done stays, and the next one does the rest.
func TestKEKLostInTheMiddle(t *testing.T) {
	l := newLab(t)
	want := l.fill(600)
	l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt, Prefix: prefix + "ns/000"})
	l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt}) // the others, under another DEK
	p := l.process()
	kv := &hooked{KV: l.client, after: func(n int) error {
		if n == 1 {
			p.kek.Fail(kek.Unavailable)
		}
		return nil
	}}
	lost := l.engine(p, false, func(c *migrate.Config) { c.KV, c.Patience = kv, time.Nanosecond })
	// The first transaction has to be through before another DEK is asked for.
	result, err := lost.Run(t.Context(), migrate.Job{Kind: migrate.Decrypt, Prefix: prefix + "ns/000"})
	if err != nil || result.Changed != 100 {
		t.Fatalf("%+v, %v", result, err)
	}
	result, err = lost.Run(t.Context(), migrate.Job{Kind: migrate.Decrypt})
	if kek.ClassOf(err) != kek.Unavailable || len(result.Problems) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	_, left := l.values(l.process())
	p.kek.Fail(0)
	if rest := l.run(l.engine(p, false), migrate.Job{Kind: migrate.Decrypt}); rest.Changed != int64(left) || left == 0 || left == 600 {
		t.Errorf("%d were left, %+v", left, rest)
	}
	if got, sealed := l.values(p); sealed != 0 || !cmp.Equal(want, got) {
		t.Errorf("%d are sealed", sealed)
	}
}

// TestMemberDown has one of three members down. A migration goes on, and is not held up by
// it; a purge is refused and names it. With all of them there the leader comes last.
func TestMemberDown(t *testing.T) {
	l := newLab(t)
	l.stop()
	members := l.cluster(3)
	client, err := migrate.Dial(migrate.DialConfig{Endpoints: l.endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	l.client, l.endpoint = client, l.endpoints[0]
	for i := range 64 {
		l.put(fmt.Sprintf("%s%02d", prefix, i), strings.Repeat("x", 512<<10))
	}
	down := slices.IndexFunc(members, func(m *embed.Etcd) bool { return m.Server.Leader() != m.Server.MemberID() && m != members[0] })
	name := members[down].Config().Name
	members[down].Close()
	all := func(c *migrate.Config) { c.Endpoints = l.endpoints }
	start := time.Now()
	if done := l.run(l.engine(l.process(), true, all), migrate.Job{Kind: migrate.Encrypt}); done.Changed != 64 {
		t.Errorf("%+v", done)
	}
	t.Logf("with a member down: %s", time.Since(start))
	before, err := client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	hurried := func(c *migrate.Config) { c.Endpoints, c.Timeout = l.endpoints, 5*time.Second } // those that are up need less
	_, err = l.engine(l.process(), true, hurried).Purge(t.Context(), client)
	contains(t, err, "nothing more is defragmented")
	contains(t, err, name)
	if _, err := client.Get(t.Context(), prefix, clientv3.WithRev(before.Header.Revision-5), clientv3.WithLimit(1)); err != nil {
		t.Errorf("it was compacted all the same: %v", err)
	}
	l.startMember(members[down].Config())
	purged, err := l.engine(l.process(), true, all).Purge(t.Context(), client)
	if err != nil || len(purged.Members) != 3 || purged.Failed() {
		t.Fatalf("%+v, %v", purged, err)
	}
	for i, m := range purged.Members {
		if m.Leader != (i == 2) || m.After >= m.Before {
			t.Errorf("member %d of the purge: %+v", i, m)
		}
	}
}

// cluster starts a cluster of etcds on sockets.
func (l *lab) cluster(n int) []*embed.Etcd {
	l.Helper()
	root := filepath.Dir(l.dir)
	var configs []embed.Config
	var initial []string
	for i := range n {
		c := embed.NewConfig()
		c.Name = fmt.Sprintf("m%d", i)
		c.Dir = filepath.Join(root, c.Name)
		client := url.URL{Scheme: "unix", Path: filepath.Join(root, c.Name+".sock")}
		peer := url.URL{Scheme: "http", Host: l.freeAddress()}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		c.UnsafeNoFsync = true
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		initial = append(initial, c.Name+"="+peer.String())
		l.endpoints = append(l.endpoints, client.String())
		configs = append(configs, *c)
	}
	var members []*embed.Etcd
	for i := range configs {
		configs[i].InitialCluster = strings.Join(initial, ",")
		members = append(members, l.begin(&configs[i]))
	}
	for _, m := range members {
		l.ready(m)
	}
	return members
}

func (l *lab) ready(m *embed.Etcd) {
	l.Helper()
	select {
	case <-m.Server.ReadyNotify():
	case <-time.After(time.Minute):
		l.Fatal("an etcd is not ready")
	}
}

// freeAddress returns a loopback address that was free a moment ago. Its port is below those
// that systems give to outgoing connections, of which one could have it while the member
// that listens there is stopped.
func (l *lab) freeAddress() string {
	l.Helper()
	for {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(10000)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
	}
}

func (l *lab) startMember(c embed.Config) {
	l.Helper()
	l.ready(l.begin(&c))
}

// begin starts an etcd and does not wait for it.
func (l *lab) begin(c *embed.Config) *embed.Etcd {
	l.Helper()
	m, err := embed.StartEtcd(c)
	if err != nil {
		l.Fatalf("starting etcd: %v", err)
	}
	l.Cleanup(func() {
		select {
		case <-m.Server.StopNotify(): // a test has stopped it
		default:
			m.Close()
		}
	})
	return m
}

// TestDryRunAsksOnce has a dry run not ask for the size of a database of which it may read
// nothing: an etcd that does not answer would be waited for twice.
func TestDryRunAsksOnce(t *testing.T) {
	l := newLab(t)
	asked := &asking{Maintenance: l.client}
	e := l.engine(l.process(), true, func(c *migrate.Config) { c.KV, c.Maintenance = untelling{l.client}, asked })
	if _, err := e.Run(t.Context(), migrate.Job{Kind: migrate.Encrypt, DryRun: true}); !errors.Is(err, rpctypes.ErrPermissionDenied) || asked.n != 0 {
		t.Errorf("got %v after %d questions", err, asked.n)
	}
}

// untelling is an etcd that tells nothing.
type untelling struct{ clientv3.KV }

func (untelling) Get(context.Context, string, ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return nil, rpctypes.ErrPermissionDenied
}

// asking counts who asks for a member's state.
type asking struct {
	clientv3.Maintenance
	n int
}

func (a *asking) Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	a.n++
	return a.Maintenance.Status(ctx, endpoint)
}

// TestPurgeAsksOnce has a member that is down be asked once, though it is both configured and
// in the list of members: it is waited for for long.
func TestPurgeAsksOnce(t *testing.T) {
	const down = "http://down"
	asked := &downAt{endpoint: down}
	l := newLab(t)
	asked.Maintenance = l.client
	e := l.engine(l.process(), true, func(c *migrate.Config) {
		c.Maintenance, c.Endpoints = asked, []string{l.endpoint, down}
	})
	_, err := e.Purge(t.Context(), listed{l.client, &pb.Member{ID: 7, Name: "seven", ClientURLs: []string{down}}})
	if err == nil || !strings.Contains(err.Error(), "member 7 (seven) cannot be reached") || asked.n != 1 {
		t.Errorf("got %v after %d questions", err, asked.n)
	}
}

// downAt has one endpoint not answer.
type downAt struct {
	clientv3.Maintenance
	endpoint string
	n        int
}

func (d *downAt) Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	if endpoint == d.endpoint {
		d.n++
		return nil, context.DeadlineExceeded
	}
	return d.Maintenance.Status(ctx, endpoint)
}

// listed adds a member to those of a cluster.
type listed struct {
	clientv3.Cluster
	member *pb.Member
}

func (l listed) MemberList(ctx context.Context, opts ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	answer, err := l.Cluster.MemberList(ctx, opts...)
	if err == nil {
		answer.Members = append(answer.Members, l.member)
	}
	return answer, err
}
