package doctor

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/etcdseal/etcdseal/config"
)

// What etcd takes is measured exactly, and nothing of it gets into etcd's log.
func TestLimits(t *testing.T) {
	for limit, want := range map[uint]struct {
		level Level
		text  string
	}{
		1572864:  {OK, "1572864 (measured"},
		65536:    {OK, "65536 (measured"},
		10 << 20: {OK, "10485760 (measured"},
		20 << 20: {Warning, "etcd advises 10 MiB"},
	} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, func(c *embed.Config) { c.MaxRequestBytes = limit })
			l.settle()
			p := l.patient()
			before := l.status()
			found := runAfterMembers(t, p, func(d *doctor) check {
				return func(ctx context.Context, n *notes) { d.requests(ctx, n, nil) }
			})
			wants(t, found, Requests, want.level, "--max-request-bytes", want.text)
			after := l.status()
			// Its file grows by itself for some seconds after its start: it tells nothing.
			if before.Header.Revision != after.Header.Revision || before.RaftIndex != after.RaftIndex {
				t.Errorf("etcd was at %v and is at %v", before, after)
			}
		})
	}
}

// settle waits until etcd has written what it writes by itself after its start.
func (l *lab) settle() {
	l.Helper()
	for l.server.Server.ClusterVersion() == nil {
		l.put("/settle", "") // which takes a moment
	}
}

func (l *lab) status() *clientv3.StatusResponse {
	l.Helper()
	status, err := l.client.Status(l.Context(), l.endpoint)
	if err != nil {
		l.Fatal(err)
	}
	return status
}

func TestRequests(t *testing.T) {
	const limit = 100_000
	l := newLab(t, func(c *embed.Config) { c.MaxRequestBytes = limit })
	look := func(p Config) []Finding {
		return runAfterMembers(t, p, func(d *doctor) check { return d.contents })
	}
	own := func(n int) Config {
		return l.patient(func(c *config.Config) { c.Limits.MaxRequestBytes = n })
	}
	received := limit + 512<<10
	wants(t, look(own(received)), Requests, OK, "limits.maxRequestBytes", "as large as")
	wantsNot(t, look(own(received)), Requests, Warning, "limits.maxRequestBytes")
	wants(t, look(own(received-1)), Requests, Warning, "limits.maxRequestBytes", fmt.Sprintf("set it to %d", received))
	wants(t, look(own(received+1)), Requests, OK, "limits.maxRequestBytes", "to spare memory")

	wantsNot(t, look(own(received)), Requests, OK, "largest value")
	for _, r := range []struct {
		size  int
		level Level
	}{{1000, OK}, {limit - 8000, Warning}, {limit - 300, Problem}} {
		l.put(prefix+fmt.Sprint("v", r.size), strings.Repeat("x", r.size))
		found := look(own(received))
		wants(t, found, Requests, r.level, "largest value", fmt.Sprint(prefix, "v", r.size), "48 bytes longer")
		if r.level != OK {
			wantsNot(t, found, Requests, OK, "largest value")
		}
	}
}

// The members' limits may differ.
func TestLimitsDiffer(t *testing.T) {
	a := newLab(t)
	b := newLab(t, func(c *embed.Config) { c.MaxRequestBytes = 1 << 20 })
	p := open(t, a.dir, settings(t, a.dir, a.endpoint, b.endpoint))
	d := &doctor{Config: p, usable: []string{a.endpoint, b.endpoint}} // as if they were one cluster
	d.complete()
	var n notes
	if least, ok := d.limits(t.Context(), &n); !ok || least != 1<<20 {
		t.Errorf("the least is %d, %v", least, ok)
	}
	wants(t, n.findings, Requests, Warning, "from 1048576 to 1572864")
	n, d.usable = notes{}, []string{a.endpoint}
	d.limits(t.Context(), &n)
	wantsNot(t, n.findings, Requests, Warning)
}
