package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Health is what is known of an endpoint.
type Health int

const (
	// Unknown: no probe has ended yet.
	Unknown Health = iota
	// Healthy: the last probe found a voting member with a leader.
	Healthy
	// Suspect: it was healthy, and then one probe or one connection failed. It counts as not healthy, but nothing drains.
	Suspect
	// Leaderless: the member answers but knows no leader.
	Leaderless
	// Dead: it does not answer.
	Dead
	// Learner: the member does not vote and refuses nearly every call.
	Learner
)

// String returns a name for people and for a metric's label.
func (h Health) String() string {
	switch h {
	case Unknown:
		return "unknown"
	case Healthy:
		return "healthy"
	case Suspect:
		return "suspect"
	case Leaderless:
		return "leaderless"
	case Dead:
		return "dead"
	case Learner:
		return "learner"
	}
	return fmt.Sprintf("Health(%d)", int(h))
}

// rank orders endpoints by preference, the least first: Dial takes one of a later rank only when all of earlier ranks failed. Leaderless and dead members
// are tried at last, not refused, since etcd's own answer (no leader) or the attempt itself tells a client more than a refusal by the proxy.
func (h Health) rank() int {
	if h == Healthy {
		return -1
	}
	return int(h)
}

// unfit says whether connections should leave the endpoint when there is a healthy one.
func (h Health) unfit() bool { return h == Leaderless || h == Dead || h == Learner }

// endpoint is one member as the pool sees it. Pool.mu guards all fields below it but the channel wake.
type endpoint struct {
	address
	wake chan struct{} // asks Run for a probe now; holds one request

	probing sync.Mutex       // held during a probe; guards client. It is taken before Pool.mu
	client  *grpc.ClientConn // nil before the first probe and after a failed one

	health  Health
	finding finding
	probed  time.Time
	pairs   int           // connections that are open or being opened
	drain   chan struct{} // closed when the connections that got it must go; then replaced
}

// newEndpoint returns an endpoint of which nothing is known.
func newEndpoint(a address) *endpoint {
	return &endpoint{
		address: a,
		wake:    make(chan struct{}, 1),
		finding: finding{reason: "it was not probed yet"},
		drain:   make(chan struct{}),
	}
}

// finding is what one probe learned.
type finding struct {
	health  Health
	reason  string // why it is not healthy
	version string
	member  uint64
	cluster uint64
	leads   bool
	alarms  []string
	size    int64
	inUse   int64
	quota   int64
	took    time.Duration
}

// EndpointState is a snapshot of one endpoint.
type EndpointState struct {
	// Endpoint is the endpoint as configured.
	Endpoint string
	// Health and Reason tell its health and, if it is not healthy, why.
	Health Health
	Reason string
	// Pairs is the number of connections from Dial that are open or being opened.
	Pairs int
	// Probed is when the last probe ended, zero before the first; Took is how long it took.
	Probed time.Time
	Took   time.Duration
	// Version, MemberID, ClusterID, IsLeader and Alarms are from the last probe's answer and zero without one. Alarms are the cluster's (NOSPACE, CORRUPT);
	// they do not make an endpoint unhealthy, since every member has them and etcd's own errors say the same to clients.
	Version   string
	MemberID  uint64
	ClusterID uint64
	IsLeader  bool
	Alarms    []string
	// DBSize, DBInUse and DBQuota are of the member's database, in bytes, likewise: its file, what is not free in it, and what the file may grow to,
	// which is 0 before etcd 3.6.
	DBSize, DBInUse, DBQuota int64
}

// State returns a snapshot of all endpoints, in the order of the configuration.
func (p *Pool) State() []EndpointState {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make([]EndpointState, 0, len(p.endpoints))
	for _, e := range p.endpoints {
		states = append(states, EndpointState{
			Endpoint: e.name, Health: e.health, Reason: e.finding.reason, Pairs: e.pairs, Probed: e.probed, Took: e.finding.took,
			Version: e.finding.version, MemberID: e.finding.member, ClusterID: e.finding.cluster, IsLeader: e.finding.leads, Alarms: e.finding.alarms,
			DBSize: e.finding.size, DBInUse: e.finding.inUse, DBQuota: e.finding.quota,
		})
	}
	return states
}

// Ready reports whether a healthy endpoint is known and all healthy ones belong to one cluster. The error says what is wrong with each endpoint. It
// asks nobody: it tells what the last probes found.
func (p *Pool) Ready(context.Context) error {
	healthy, cluster := 0, uint64(0)
	var wrong []string
	for _, s := range p.State() {
		if s.Health != Healthy {
			wrong = append(wrong, fmt.Sprintf("%s is %s: %s", s.Endpoint, s.Health, s.Reason))
			continue
		}
		healthy++
		switch {
		case cluster == 0:
			cluster = s.ClusterID
		case s.ClusterID != 0 && s.ClusterID != cluster: // 0 is a probe without an answer to read it from
			return fmt.Errorf("checking etcd endpoints: they belong to different clusters (%x and %x)", cluster, s.ClusterID)
		}
	}
	if healthy == 0 {
		return errors.New("checking etcd endpoints: none is healthy: " + strings.Join(wrong, "; "))
	}
	return nil
}

// settle takes in what a probe found.
func (p *Pool) settle(e *endpoint, f finding) {
	p.mu.Lock()
	before := e.health
	e.health = next(before, f.health)
	e.finding = f
	e.probed = p.cfg.Now()
	after := e.health
	p.drainUnfit()
	p.mu.Unlock()
	p.cfg.Observer.EndpointProbed(e.name, f.health, f.took)
	if after != before {
		p.cfg.Logger.Info("etcd endpoint changed", "endpoint", e.name, "health", after.String(), "before", before.String(), "reason", f.reason)
	}
}

// next is the health after a probe. What was healthy must be found unfit twice, unless it says that it is a learner, which does not pass.
func next(before, found Health) Health {
	if before == Healthy && (found == Dead || found == Leaderless) {
		return Suspect
	}
	return found
}

// suspect takes a healthy endpoint out of the choice, after a connection to it failed, until it has been probed, which is asked for at once.
func (p *Pool) suspect(e *endpoint, reason string) {
	p.mu.Lock()
	changed := e.health == Healthy
	if changed {
		e.health, e.finding.reason = Suspect, reason
	}
	p.mu.Unlock()
	if changed {
		p.cfg.Logger.Info("etcd endpoint changed", "endpoint", e.name, "health", Suspect.String(), "before", Healthy.String(), "reason", reason)
		e.nudge()
	}
}

// nudge asks Run to probe the endpoint now.
func (e *endpoint) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// drainUnfit tells the connections on unfit endpoints to go if there is a healthy one. The caller holds p.mu.
func (p *Pool) drainUnfit() {
	for _, e := range p.endpoints {
		if e.health != Healthy {
			continue
		}
		for _, u := range p.endpoints {
			if u.health.unfit() && u.pairs > 0 {
				close(u.drain)
				u.drain = make(chan struct{})
			}
		}
		return
	}
}
