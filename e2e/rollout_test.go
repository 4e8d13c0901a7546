package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/poll"
)

// readPause is the pause of a reader between two reads, so that readers leave
// processor time to the programs under test.
const readPause = 10 * time.Millisecond

// node is one control-plane node: a kube-apiserver and, once it is rolled out,
// the etcdseal in front of its etcd client.
type node struct {
	api   *apiserver.Server
	proxy *etcdseal.Proxy
	// rotation is held by whoever takes the node out of the load balancer; a
	// reader holds it shared for each read.
	rotation sync.RWMutex
}

// TestRollout takes two control-plane nodes from etcd without a proxy to
// sealed secrets, one node and one step at a time as design and README say, and
// back to unsealed writes, while readers on both nodes never see a failed or
// wrong read.
func TestRollout(t *testing.T) {
	l := newLab(t, true)
	nodes := []*node{{}, {}}
	for i, n := range nodes {
		cfg := l.apiConfig(l.etcd.Endpoint(), true)
		cfg.Name = fmt.Sprint(i)
		n.api = apiserver.Start(t, cfg)
	}
	w := newWorkload(t, l, nodes[0].api.Client())
	w.createBatch(t)
	readers := startReaders(w, nodes)
	defer readers.stop()

	for i, n := range nodes {
		cfg := l.secureProxyConfig(t)
		cfg.Name = fmt.Sprint(i)
		cfg.Rules = []etcdseal.Rule{{Prefix: etcdseal.SecretsPrefix, Unsealed: true}}
		n.proxy = etcdseal.Start(t, cfg)
		n.rotation.Lock()
		n.api.Stop(t)
		n.api.UseEtcd(n.proxy.Endpoint())
		n.api.Run(t)
		n.rotation.Unlock()
		readers.writeEverywhere(t, []bool{false, false})
	}
	sealed := []bool{false, false}
	for _, step := range []struct {
		node int
		seal bool
	}{{0, true}, {1, true}, {0, false}, {0, true}} {
		nodes[step.node].proxy.Reload(t, func(cfg *etcdseal.Config) {
			cfg.Rules = []etcdseal.Rule{{Prefix: etcdseal.SecretsPrefix, Unsealed: !step.seal}}
		})
		readers.waitSealing(t, step.node, step.seal)
		sealed[step.node] = step.seal
		readers.writeEverywhere(t, sealed)
	}
	readers.rewriteAll(t)
	for key, value := range etcd.Pairs(t, l.raw, etcdseal.SecretsPrefix) {
		if _, err := etcd.EnvelopeID(value); err != nil {
			t.Errorf("after the rollout, stored value of %s: %v", key, err)
		}
	}
	if _, err := etcd.CheckHistory(t, l.raw, etcdseal.KeyringPrefix, firstRevision); err != nil {
		t.Errorf("etcd's history: %v", err)
	}
	readers.stop()
	readers.check(t)
	w.check(t)
}

// readers read what a workload holds through every node that is in rotation.
type readers struct {
	w      *workload
	nodes  []*node
	cancel context.CancelFunc
	done   sync.WaitGroup

	// mu guards the fields below and the workload's secrets.
	mu       sync.Mutex
	counts   []int // reads by node
	failures []error
}

func startReaders(w *workload, nodes []*node) *readers {
	ctx, cancel := context.WithCancel(context.Background())
	r := &readers{w: w, nodes: nodes, cancel: cancel, counts: make([]int, len(nodes))}
	for i := range nodes {
		r.done.Go(func() { r.read(ctx, i) })
	}
	return r
}

// stop ends the readers; it may be called twice.
func (r *readers) stop() {
	r.cancel()
	r.done.Wait()
}

// read reads one secret, and now and then all, until ctx ends.
func (r *readers) read(ctx context.Context, i int) {
	n := r.nodes[i]
	client := n.api.Client()
	ticker := time.NewTicker(readPause)
	defer ticker.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n.rotation.RLock()
		err := r.readOnce(client, round)
		n.rotation.RUnlock()
		r.mu.Lock()
		r.counts[i]++
		if err != nil {
			r.failures = append(r.failures, fmt.Errorf("node %d: %w", i, err))
		}
		r.mu.Unlock()
	}
}

func (r *readers) readOnce(client *apiserver.Client, round int) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	r.mu.Lock()
	want := maps.Clone(r.w.secrets)
	r.mu.Unlock()
	if round%10 == 9 {
		all, _, err := client.List(ctx, r.w.path(), 0, nil)
		if err != nil {
			return fmt.Errorf("listing secrets: %w", err)
		}
		for _, item := range all.Items {
			value, known := want[item.Metadata.Name]
			if known && !bytes.Equal(item.Data["value"], value) {
				return fmt.Errorf("listing secrets: %s has another value", item.Metadata.Name)
			}
			delete(want, item.Metadata.Name)
		}
		if len(want) > 0 {
			return fmt.Errorf("listing secrets: %d are missing", len(want))
		}
		return nil
	}
	names := slices.Collect(maps.Keys(want))
	name := names[rand.IntN(len(names))]
	object, err := client.Get(ctx, r.w.path(), name)
	if err != nil {
		return fmt.Errorf("reading secret %s: %w", name, err)
	}
	if !bytes.Equal(object.Data["value"], want[name]) {
		return errors.New("reading secret " + name + ": another value")
	}
	return nil
}

// write creates a secret through a node and returns its name.
func (r *readers) write(t *testing.T, i int) string {
	t.Helper()
	r.w.written++
	name := fmt.Sprintf("rollout-%03d", r.w.written)
	value := r.w.lab.secret(t, "rollout", 64)
	client := r.nodes[i].api.Client()
	if _, err := client.Create(call(t), r.w.path(), apiserver.NewSecret(r.w.namespace, name, value)); err != nil {
		t.Fatalf("creating secret through node %d: %v", i, err)
	}
	r.mu.Lock()
	r.w.secrets[name] = value
	r.mu.Unlock()
	return name
}

// writeEverywhere writes through every node, reads it back through all, and
// checks that a node seals what it should and nothing else.
func (r *readers) writeEverywhere(t *testing.T, sealed []bool) {
	t.Helper()
	for i := range r.nodes {
		name := r.write(t, i)
		for j, n := range r.nodes {
			object, err := n.api.Client().Get(call(t), r.w.path(), name)
			if err != nil {
				t.Fatalf("reading through node %d what node %d wrote: %v", j, i, err)
			}
			r.w.checkValue(t, name, object.Data["value"], r.w.secrets[name])
		}
		if got := r.isSealed(t, name); got != sealed[i] {
			t.Errorf("node %d: secret is sealed in etcd: %v, want %v", i, got, sealed[i])
		}
	}
}

// waitSealing waits until what is written through a node is sealed, or is not.
func (r *readers) waitSealing(t *testing.T, i int, want bool) {
	t.Helper()
	poll.Until(t, settleLimit, fmt.Sprintf("node %d to write with seal: %v", i, want),
		func(context.Context) error {
			if got := r.isSealed(t, r.write(t, i)); got != want {
				return fmt.Errorf("secret is sealed in etcd: %v", got)
			}
			return nil
		})
}

func (r *readers) isSealed(t *testing.T, name string) bool {
	t.Helper()
	key := etcdseal.SecretsPrefix + r.w.namespace + "/" + name
	value, stored := etcd.Pairs(t, r.w.lab.raw, key)[key]
	if !stored {
		t.Fatalf("secret %s is not in etcd", name)
	}
	return etcd.IsEnvelope(value)
}

// rewriteAll changes a label of every secret, by which its value is written
// again; kube-apiserver leaves out a write that changes nothing.
func (r *readers) rewriteAll(t *testing.T) {
	t.Helper()
	for i, name := range slices.Sorted(maps.Keys(r.w.secrets)) {
		client := r.nodes[i%len(r.nodes)].api.Client()
		path := r.w.path() + "/" + name
		patch := `{"metadata":{"labels":{"rewritten":"yes"}}}`
		if err := client.Patch(call(t), path, apiserver.MergePatch, patch, nil); err != nil {
			t.Fatalf("rewriting secret %s: %v", name, err)
		}
	}
}

// check demands that both nodes were read, always with success.
func (r *readers) check(t *testing.T) {
	t.Helper()
	for i, count := range r.counts {
		t.Logf("reads through node %d: %d", i, count)
		if count < 10 {
			t.Errorf("only %d reads through node %d: the readers did not run", count, i)
		}
	}
	for _, err := range r.failures {
		t.Errorf("failed read: %v", err)
	}
}
