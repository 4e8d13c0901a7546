package migrate_test

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/migrate"
)

// old is an etcd that says that it is of another version.
type old struct {
	*clientv3.Client
	version string
}

func (o old) Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	status, err := o.Client.Status(ctx, endpoint)
	if err == nil {
		status.Version = o.version
	}
	return status, err
}

func TestEarlyProgress(t *testing.T) {
	for version, want := range map[string]bool{
		"": true, "x": true, "3": true, "3.5": true, "2.3.8": true, "3.3.27": true,
		"3.4.24": true, "3.4.25": false, "3.5.0": true, "3.5.7": true, "3.5.8": false, "3.5.21": false,
		"3.6.0": false, "3.7.0-alpha.0": false, "4.0.0": false,
	} {
		if got := migrate.EarlyProgress(version); got != want {
			t.Errorf("%q: %t, want %t", version, got, want)
		}
	}
}

// TestEarlyHistory looks at no history that may not be whole: nothing is called clean, and
// nothing is removed.
func TestEarlyHistory(t *testing.T) {
	l := newLab(t)
	p := l.process()
	l.put(prefix+"a", sealed(l.dek(p), prefix+"a"))
	e := l.engine(p, true, func(c *migrate.Config) { c.KV = old{l.client, "3.5.7"} })
	if _, err := e.Verify(t.Context(), "", false, func(migrate.Finding) {}); err != nil {
		t.Errorf("live values: %v", err)
	}
	_, err := e.Verify(t.Context(), "", true, func(migrate.Finding) {})
	contains(t, err, `is etcd "3.5.7"`)
	c := l.collector(p, func(c *migrate.CollectorConfig) { c.KV = old{l.client, "3.5.7"} })
	_, err = c.Plan(t.Context())
	contains(t, err, "use 3.5.8 or later")
}
