package doctor

import (
	"net/url"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// What an endpoint says of itself, and what is made of it.
func TestMember(t *testing.T) {
	healthy := upstream.EndpointState{Endpoint: "e", Health: upstream.Healthy, Version: "3.6.1", MemberID: 1, DBSize: 10, DBInUse: 5, DBQuota: 100}
	state := func(change func(*upstream.EndpointState)) upstream.EndpointState {
		s := healthy
		change(&s)
		return s
	}
	for name, r := range map[string]struct {
		state upstream.EndpointState
		level Level
		texts []string
	}{
		"follower":     {healthy, OK, []string{"version 3.6.1, follower"}},
		"leader":       {state(func(s *upstream.EndpointState) { s.IsLeader = true }), OK, []string{"leader"}},
		"3.5":          {state(func(s *upstream.EndpointState) { s.Version = "3.5.20" }), OK, []string{"version 3.5.20"}},
		"3.5.7":        {state(func(s *upstream.EndpointState) { s.Version = "3.5.7" }), Warning, []string{"version 3.5.7", "`verify --history` and `keyring gc` refuse it"}},
		"old":          {state(func(s *upstream.EndpointState) { s.Version = "3.4.30" }), Warning, []string{"version 3.4.30", "3.5, 3.6, 3.7"}},
		"new":          {state(func(s *upstream.EndpointState) { s.Version = "3.70.0" }), Warning, []string{"version 3.70.0"}},
		"dead":         {state(func(s *upstream.EndpointState) { s.Health, s.Reason = upstream.Dead, "refused" }), Problem, []string{"does not answer: refused"}},
		"learner":      {state(func(s *upstream.EndpointState) { s.Health = upstream.Learner }), Warning, []string{"learner"}},
		"no leader":    {state(func(s *upstream.EndpointState) { s.Health = upstream.Leaderless }), Problem, []string{"no leader"}},
		"says nothing": {state(func(s *upstream.EndpointState) { s.Version = "" }), Unknown, []string{"who has no user"}},
		"room":         {healthy, OK, []string{"10% of the quota"}},
		"little room":  {state(func(s *upstream.EndpointState) { s.DBSize = 75 }), Warning, []string{"75% of the quota"}},
		"no room":      {state(func(s *upstream.EndpointState) { s.DBSize = 90 }), Problem, []string{"90% of the quota"}},
		"no quota":     {state(func(s *upstream.EndpointState) { s.DBQuota = 0 }), Unknown, []string{"before 3.6 does not say its quota"}},
	} {
		t.Run(name, func(t *testing.T) {
			var n notes
			(&doctor{}).member(&n, r.state)
			wants(t, n.findings, Etcd, r.level, r.texts...)
			n = notes{}
			if (&doctor{}).member(&n, healthy); r.level != OK {
				wantsNot(t, n.findings, Etcd, r.level, r.texts...)
			}
		})
	}
}

// An alarm is found in a real etcd's words.
func TestAlarms(t *testing.T) {
	for alarm, kind := range map[string]pb.AlarmType{"NOSPACE": pb.AlarmType_NOSPACE, "CORRUPT": pb.AlarmType_CORRUPT} {
		l := newLab(t)
		p := l.patient()
		members := func(d *doctor) check { return d.members }
		found := run(t, p, members)
		wantsNot(t, found, Etcd, Problem, "alarms", alarm)
		wants(t, found, Etcd, OK, "alarms", "none")
		_, err := l.server.Server.Alarm(t.Context(), &pb.AlarmRequest{MemberID: uint64(l.server.Server.MemberID()), Action: pb.AlarmRequest_ACTIVATE, Alarm: kind})
		if err != nil {
			t.Fatal(err)
		}
		wants(t, run(t, p, members), Etcd, Problem, "alarms", alarm)
	}
}

// Endpoints of two clusters are found out, and nothing is asked of either.
func TestTwoClusters(t *testing.T) {
	a, b := newLab(t), newLab(t)
	both := open(t, a.dir, settings(t, a.dir, a.endpoint, b.endpoint))
	found := Examine(t.Context(), both)
	wants(t, found, Etcd, Problem, "cluster id", "2 clusters", a.endpoint, b.endpoint)
	wants(t, found, Keyring, Unknown, "not looked at")
	found = Examine(t.Context(), a.patient())
	wantsNot(t, found, Etcd, Problem, "cluster id")
	wants(t, found, Etcd, OK, "cluster id", "at all that answer")
}

// Over TLS: etcd's certificate and clock are looked at, an authority that is not its own
// is found out, and what it takes is measured as without.
func TestSecureMember(t *testing.T) {
	dir := t.TempDir()
	k := pki{t, dir, certstest.NewCA(t, "ca")}
	soon := k.ca.Issue(t, certstest.Request{Server: true, DNSNames: []string{"localhost"}, IPs: k.loopback(), NotAfter: time.Now().Add(10 * 24 * time.Hour)})
	certFile, keyFile := k.pair("etcd", soon)
	l := newLab(t, func(c *embed.Config) {
		c.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
		c.AdvertiseClientUrls = c.ListenClientUrls
		c.ClientTLSInfo = transport.TLSInfo{CertFile: certFile, KeyFile: keyFile}
	})
	trusting := func(ca *certstest.CA) Config {
		return open(t, dir, settings(t, dir, l.endpoint), func(c *config.Config) { c.Etcd.TLS.CAFile = ca.Write(t, t.TempDir()) })
	}
	found := Examine(t.Context(), trusting(k.ca))
	wants(t, found, Certificates, Warning, "certificate of "+l.endpoint, "in 9 days")
	wants(t, found, Etcd, OK, "clock of "+l.endpoint, "to a second")
	wants(t, found, Requests, OK, "--max-request-bytes", "1572864")
	found = Examine(t.Context(), trusting(certstest.NewCA(t, "another")))
	wants(t, found, Etcd, Problem, l.endpoint, "does not answer", "unknown authority")
	wantsNot(t, found, Certificates, Warning, "certificate of "+l.endpoint)
}

func TestClock(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 500_000_000, time.UTC)
	for name, r := range map[string]struct {
		by    time.Duration // that the other clock is ahead
		level Level
		text  string
	}{
		"the same": {0, OK, "to a second"}, "a little ahead": {30 * time.Second, OK, "29s ahead of"},
		"ahead": {2 * time.Minute, Warning, "1m59s ahead of"}, "behind": {-2 * time.Minute, Warning, "behind"},
		"far ahead": {time.Hour, Problem, "59m59s ahead of"}, "far behind": {-time.Hour, Problem, "behind"},
	} {
		t.Run(name, func(t *testing.T) {
			var n notes
			reading{at.Add(r.by).Truncate(time.Second), at, at.Add(10 * time.Millisecond)}.compare(&n, Etcd, "clock", "Date")
			wants(t, n.findings, Etcd, r.level, "clock", r.text)
		})
	}
	// One who takes long to answer is not off for it.
	if by, _ := (reading{at.Add(time.Minute), at, at.Add(2 * time.Minute)}).off(); by != 0 {
		t.Errorf("off by %s", by)
	}
}
