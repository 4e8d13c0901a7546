package e2e

import (
	"context"
	"testing"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/poll"
)

// restartKubernetes restarts each part in the middle of its work: nothing may
// be lost, and a watch that was open must go on without a gap, as it does when
// etcd is restarted under a kube-apiserver without a proxy.
func restartKubernetes(t *testing.T, c *cluster, w *workload) {
	follow := w.follow(t)
	if c.proxy != nil {
		t.Run("etcdseal restarted", func(t *testing.T) {
			c.proxy.Restart(t)
			w.settle(t)
			follow.expect(t, w.write(t))
			w.check(t)
		})
		t.Run("etcdseal killed", func(t *testing.T) {
			c.proxy.Process().Kill(t)
			c.proxy.Run(t)
			c.proxy.WaitReady(t)
			w.settle(t)
			follow.expect(t, w.write(t))
			w.check(t)
		})
	}
	t.Run("etcd killed", func(t *testing.T) {
		c.etcd.Kill(t)
		c.etcd.Run(t)
		w.settle(t)
		follow.expect(t, w.write(t))
		w.check(t)
	})
	follow.stop()
	t.Run("kube-apiserver restarted", func(t *testing.T) {
		c.api.Stop(t)
		c.api.Run(t)
		w.check(t)
		w.write(t)
		w.check(t)
	})
	t.Run("kube-apiserver killed", func(t *testing.T) {
		c.api.Kill(t)
		if c.proxy != nil {
			waitIdle(t, c.proxy)
		}
		c.api.Run(t)
		w.check(t)
		w.write(t)
		w.check(t)
	})
}

// onlySecretsDepend stops the proxy: secrets must wait for it, and nothing else
// may notice.
func onlySecretsDepend(t *testing.T, c *cluster, w *workload) {
	c.proxy.Stop(t)
	w.createConfigMap(t)
	for name := range w.secrets {
		ctx, cancel := context.WithTimeout(call(t), absenceLimit)
		defer cancel()
		if _, err := w.api.Get(ctx, w.path(), name); err == nil {
			t.Errorf("secret %s was read without the proxy", name)
		}
		break
	}
	c.proxy.Run(t)
	c.proxy.WaitReady(t)
	w.settle(t)
	w.write(t)
	w.check(t)
}

// settle waits until kube-apiserver reads secrets and config maps again: it has a
// connection to etcd for each resource, and each of them takes its time to come back.
func (w *workload) settle(t *testing.T) {
	t.Helper()
	for path, objects := range map[string]map[string][]byte{w.path(): w.secrets, apiserver.ConfigMaps(w.namespace): w.configMaps} {
		for name := range objects {
			poll.Until(t, settleLimit, path+" to be readable again", func(ctx context.Context) error {
				attempt, cancel := context.WithTimeout(ctx, absenceLimit)
				defer cancel()
				_, err := w.api.Get(attempt, path, name)
				return err
			})
			break
		}
	}
}

// follower is a watch that stays open while parts of the cluster are restarted.
type follower struct {
	watch  *apiserver.Watch
	cancel context.CancelFunc
	w      *workload
}

// follow opens a watch on the workload's secrets from now on.
func (w *workload) follow(t *testing.T) *follower {
	t.Helper()
	now, _, err := w.api.List(call(t), w.path(), 0, nil)
	if err != nil {
		t.Fatalf("listing secrets: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), watchLimit)
	t.Cleanup(cancel)
	watch, err := w.api.Watch(ctx, w.path(), now.Metadata.ResourceVersion)
	if err != nil {
		t.Fatalf("watching secrets: %v", err)
	}
	return &follower{watch: watch, cancel: cancel, w: w}
}

// expect reads the next event, which must be the creation of the named secret
// with its value.
func (f *follower) expect(t *testing.T, name string) {
	t.Helper()
	event, err := f.watch.Next()
	if err != nil {
		t.Fatalf("reading watch: %v", err)
	}
	object, err := event.Secret()
	if err != nil {
		t.Fatal(err)
	}
	if event.Type != "ADDED" || object.Metadata.Name != name {
		t.Errorf("watch saw %s %s, want ADDED %s", event.Type, object.Metadata.Name, name)
	}
	f.w.checkValue(t, name, object.Data["value"], f.w.secrets[name])
}

func (f *follower) stop() {
	f.watch.Close()
	f.cancel()
}
