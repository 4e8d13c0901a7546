package doctor

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/etcdseal/etcdseal/migrate"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// Tested are the versions of etcd, without the last number, that docs/COMPATIBILITY.md
// covers and the tests run with.
var tested = []string{"3.5", "3.6", "3.7"}

// Shares of the quota, in percent, from which its use is a warning and a problem. Those who
// migrate stop at the second.
const (
	quotaWarning = 75
	quotaProblem = 90
)

// members looks at each endpoint of etcd, and finds those that can be asked further.
func (d *doctor) members(ctx context.Context, n *notes) {
	if d.Etcd == nil {
		n.add(Etcd, Problem, "all endpoints", "mend what is named", "cannot be asked: %v", d.EtcdErr)
		return
	}
	d.Etcd.Probe(ctx)
	states := d.Etcd.State()
	clusters := map[uint64][]string{}
	for _, s := range states {
		d.member(n, s)
		if s.Health == upstream.Healthy {
			d.usable = append(d.usable, s.Endpoint)
			if s.ClusterID != 0 {
				clusters[s.ClusterID] = append(clusters[s.ClusterID], s.Endpoint)
			}
		}
	}
	if len(clusters) > 1 {
		n.add(Etcd, Problem, "cluster id", "name the members of one cluster: what is sealed would be spread over several, each without the other's keyring", "the endpoints belong to %d clusters: %s", len(clusters), listClusters(clusters))
		d.usable = nil
	}
	for id := range clusters {
		if len(clusters) == 1 {
			n.add(Etcd, OK, "cluster id", "", "%x at all that answer", id)
		}
	}
	d.alarms(n, states)
	d.visits(ctx, n, states)
	if d.Client != nil && len(d.usable) > 0 {
		d.Client.SetEndpoints(d.usable...)
	}
}

func listClusters(clusters map[uint64][]string) string {
	var parts []string
	for id, endpoints := range clusters {
		parts = append(parts, fmt.Sprintf("%x at %s", id, strings.Join(endpoints, ", ")))
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// member notes what one endpoint said of itself.
func (d *doctor) member(n *notes, s upstream.EndpointState) {
	switch s.Health {
	case upstream.Healthy:
	case upstream.Learner:
		n.add(Etcd, Warning, s.Endpoint, "leave it out of etcd.endpoints until it is promoted", "a learner, which refuses nearly every call")
		return
	case upstream.Leaderless:
		n.add(Etcd, Problem, s.Endpoint, "see why the members do not reach each other", "it has no leader")
		return
	default:
		n.add(Etcd, Problem, s.Endpoint, "see that etcd runs there, that the network lets etcdseal through, and that the certificates are of the right authorities; or leave it out", "does not answer: %s", s.Reason)
		return
	}
	if s.Version == "" {
		n.add(Etcd, Unknown, s.Endpoint, "set etcd.auth, so that etcd says more", "answers, and says nothing of itself to who has no user")
		return
	}
	role := "follower"
	if s.IsLeader {
		role = "leader"
	}
	level, do := OK, ""
	if !covered(s.Version) {
		level, do = Warning, "use one of "+strings.Join(tested, ", ")+", or try everything out first"
	} else if migrate.EarlyProgress(s.Version) {
		level, do = Warning, "upgrade it: of its history it may leave out a part (etcd issue 15220), so that `verify --history` and `keyring gc` refuse it"
	}
	n.add(Etcd, level, s.Endpoint, do, "version %s, %s, member %x", s.Version, role, s.MemberID)
	quota(n, s)
}

// covered says whether a version is one of those that are tested.
func covered(version string) bool {
	return slices.ContainsFunc(tested, func(t string) bool { return strings.HasPrefix(version, t+".") })
}

// quota notes how much of its quota a member's database takes.
func quota(n *notes, s upstream.EndpointState) {
	subject := "database of " + s.Endpoint
	const compact = "compact and defragment (`etcdseal encrypt --purge` does both), or raise --quota-backend-bytes; encrypt stops at 90%"
	if s.DBQuota <= 0 {
		n.add(Etcd, Unknown, subject, "compare with --quota-backend-bytes; its default is "+size(migrate.DefaultQuota), "%s, %s of it in use; etcd before 3.6 does not say its quota", size(s.DBSize), size(s.DBInUse))
		return
	}
	percent := s.DBSize * 100 / s.DBQuota
	level, do := OK, ""
	switch {
	case percent >= quotaProblem:
		level, do = Problem, compact
	case percent >= quotaWarning:
		level, do = Warning, compact
	}
	n.add(Etcd, level, subject, do, "%s, %s of it in use; %d%% of the quota of %s", size(s.DBSize), size(s.DBInUse), percent, size(s.DBQuota))
}

// alarmForm finds the alarms in what a member says is wrong: the text of an AlarmMember.
var alarmForm = regexp.MustCompile(`alarm:\s*"?([A-Z]+)`)

// alarms notes the cluster's alarms, which each member has.
func (d *doctor) alarms(n *notes, states []upstream.EndpointState) {
	raised := map[string]bool{}
	asked := false
	for _, s := range states {
		asked = asked || s.Version != ""
		for _, text := range s.Alarms {
			if found := alarmForm.FindStringSubmatch(text); found != nil {
				raised[found[1]] = true
			}
		}
	}
	switch {
	case raised["NOSPACE"]:
		n.add(Etcd, Problem, "alarms", "compact, defragment, then `etcdctl alarm disarm`", "NOSPACE: etcd takes no writes")
	case raised["CORRUPT"]:
		n.add(Etcd, Problem, "alarms", "follow etcd's guide to data corruption before anything else", "CORRUPT: the members' data differ")
	case asked:
		n.add(Etcd, OK, "alarms", "", "none")
	}
}

// visits looks at what endpoints show beside gRPC: their certificates and clocks.
func (d *doctor) visits(ctx context.Context, n *notes, states []upstream.EndpointState) {
	visits := make([]visit, len(states))
	var all sync.WaitGroup
	for i, s := range states {
		all.Go(func() { visits[i] = d.visit(ctx, s.Endpoint) })
	}
	all.Wait()
	for i, s := range states {
		v := visits[i]
		if len(v.chain) > 0 {
			level, found := d.expires(v.chain)
			do := ""
			if level != OK {
				do = "renew it"
			}
			n.add(Certificates, level, "certificate of "+s.Endpoint, do, "%s", found)
		}
		if s.Health == upstream.Healthy {
			v.clock(n, s.Endpoint)
		}
	}
}
