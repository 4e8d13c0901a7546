package upstream

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHealthNames(t *testing.T) {
	var got []string
	for h := Unknown; h <= Learner+1; h++ {
		got = append(got, h.String())
	}
	if diff := cmp.Diff([]string{"unknown", "healthy", "suspect", "leaderless", "dead", "learner", "Health(6)"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A healthy endpoint is unfit only after two bad answers in a row.
func TestHealthAfterProbes(t *testing.T) {
	tests := []struct {
		found, want []Health
	}{
		{[]Health{Dead}, []Health{Dead}},
		{[]Health{Healthy, Dead, Dead}, []Health{Healthy, Suspect, Dead}},
		{[]Health{Healthy, Leaderless, Dead}, []Health{Healthy, Suspect, Dead}},
		{[]Health{Healthy, Leaderless, Healthy, Leaderless, Leaderless}, []Health{Healthy, Suspect, Healthy, Suspect, Leaderless}},
		{[]Health{Healthy, Learner, Healthy}, []Health{Healthy, Learner, Healthy}},
		{[]Health{Leaderless, Dead, Healthy}, []Health{Leaderless, Dead, Healthy}},
	}
	for _, test := range tests {
		p := fakePool(t, &network{})
		var got []Health
		for _, found := range test.found {
			p.settle(p.endpoints[0], finding{health: found})
			got = append(got, healths(p)[0])
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("found %v (-want +got):\n%s", test.found, diff)
		}
	}
}

func drained(c *Conn) bool {
	select {
	case <-c.Drain():
		return true
	default:
		return false
	}
}

func TestDrainNeedsAnUnfitAndAHealthyEndpoint(t *testing.T) {
	p := fakePool(t, &network{}, Healthy, Unknown, Dead)
	a, b := p.endpoints[0], p.endpoints[1]
	c := dial(t, p)
	steps := []struct {
		e     *endpoint
		found Health
		want  bool
	}{
		{a, Dead, false},       // suspect
		{a, Dead, false},       // dead, but b is unknown
		{b, Leaderless, false}, // nowhere to go
		{b, Healthy, true},
	}
	for i, step := range steps {
		p.settle(step.e, finding{health: step.found})
		if got := drained(c); got != step.want {
			t.Fatalf("step %d: got %t, want %t", i, got, step.want)
		}
	}
}

// What came to an unfit endpoint for want of a better one leaves it later, and what comes afterwards is not told to go by what was before.
func TestDrainOfLaterConnections(t *testing.T) {
	p := fakePool(t, &network{}, Dead, Dead, Dead)
	a, b := p.endpoints[0], p.endpoints[1]
	first := dial(t, p)
	if first.Endpoint() != a.name {
		t.Fatalf("dialed %s", first.Endpoint())
	}
	p.settle(b, finding{health: Healthy})
	if !drained(first) {
		t.Error("the connection to the dead endpoint stays")
	}
	p.settle(a, finding{health: Healthy})
	p.settle(b, finding{health: Healthy})
	_ = first.Close()
	for range 2 {
		if c := dial(t, p); drained(c) {
			t.Errorf("a new connection to %s is told to go", c.Endpoint())
		}
	}
}

func TestSuspect(t *testing.T) {
	p := fakePool(t, &network{}, Healthy, Healthy, Dead)
	c := dial(t, p)
	c.Suspect("no settings came")
	if diff := cmp.Diff([]Health{Suspect, Healthy, Dead}, healths(p)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := p.State()[0].Reason; got != "no settings came" {
		t.Errorf("reason: got %q", got)
	}
	select {
	case <-p.endpoints[0].wake:
	default:
		t.Error("no probe was asked for")
	}
	if drained(c) {
		t.Error("a suspicion drains connections")
	}
}

func TestReady(t *testing.T) {
	p := fakePool(t, &network{})
	settle := func(i int, f finding) { p.settle(p.endpoints[i], f) }
	mustFail := func(step string, parts ...string) {
		t.Helper()
		err := p.Ready(t.Context())
		if err == nil {
			t.Fatalf("%s: ready", step)
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %q in it", step, err, part)
			}
		}
	}
	mustFail("at first", "http://a:1 is unknown", "http://b:1", "http://c:1")
	settle(0, finding{health: Dead, reason: "connection refused"})
	settle(1, finding{health: Learner, reason: "it is a learner"})
	mustFail("none healthy", "http://a:1 is dead: connection refused", "http://b:1 is learner")
	settle(1, finding{health: Healthy}) // by a stranger's probe: no cluster is known
	settle(2, finding{health: Healthy, cluster: 7})
	if err := p.Ready(t.Context()); err != nil {
		t.Errorf("two healthy: %v", err)
	}
	settle(0, finding{health: Healthy, cluster: 8})
	mustFail("two clusters", "different clusters")
}
