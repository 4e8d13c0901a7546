package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/kubeadm"
)

const (
	// trafficPause leaves processor time to the programs under test.
	trafficPause = 20 * time.Millisecond
	// trafficNames is how many secrets are written and read.
	trafficNames = 10
	// quietNames is how many secrets are written once and then only read: those that a
	// migration has to change.
	quietNames = 5
	// attemptLimit is how long a client waits for one kube-apiserver.
	attemptLimit = 15 * time.Second
)

// traffic is a client of a cluster with several kube-apiservers that writes and reads
// secrets, one call after the other. A call that one kube-apiserver does not answer goes
// to the next; if none answers, the cluster was down, which is an error. What is read must
// be what was acknowledged last.
type traffic struct {
	nodes  []*kubeadm.Node
	marker string // in every secret
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex // guards all below; held during a step
	secret map[string][]byte
	steps  int
	err    error // of the first step that failed, which was the last
}

func startTraffic(t *testing.T, c *kubeadm.Cluster) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	x := &traffic{nodes: c.Nodes, marker: "traffic-plaintext-" + rand.Text(), cancel: cancel, done: make(chan struct{}), secret: map[string][]byte{}}
	for n := range quietNames {
		name, value := fmt.Sprintf("quiet-%d", n), fmt.Appendf(nil, "%s quiet %d", x.marker, n)
		if err := put(call(t), c.Nodes[0].Client(), name, value); err != nil {
			t.Fatalf("creating secret %s: %v", name, err)
		}
		x.secret[name] = value
	}
	go x.run(ctx)
	t.Cleanup(func() { x.cancel(); <-x.done })
	return x
}

func (x *traffic) run(ctx context.Context) {
	defer close(x.done)
	ticker := time.NewTicker(trafficPause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		x.mu.Lock()
		x.steps++
		err := x.step()
		x.err = err
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// step deletes, writes or reads a secret.
func (x *traffic) step() error {
	name := fmt.Sprintf("traffic-%d", x.steps%trafficNames)
	var err error
	switch round := x.steps / trafficNames; {
	case round%8 == 7:
		if err = x.call(func(ctx context.Context, c *apiserver.Client) error {
			return without(http.StatusNotFound, c.Delete(ctx, defaultSecrets, name))
		}); err == nil {
			delete(x.secret, name)
		}
	case round%2 == 0:
		value := fmt.Appendf(nil, "%s %d", x.marker, x.steps)
		if err = x.call(func(ctx context.Context, c *apiserver.Client) error { return put(ctx, c, name, value) }); err == nil {
			x.secret[name] = value
		}
	default:
		if x.steps%2 == 0 {
			name = fmt.Sprintf("quiet-%d", x.steps/2%quietNames)
		}
		for range x.nodes { // each of them once, if all are up
			if err = x.call(func(ctx context.Context, c *apiserver.Client) error { return x.compare(ctx, c, name) }); err != nil {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("step %d, secret %s: %w", x.steps, name, err)
	}
	return nil
}

var defaultSecrets = apiserver.Secrets("default")

// wrongValue is an answer that trying elsewhere does not mend.
type wrongValue struct{ text string }

func (w wrongValue) Error() string { return w.text }

// call makes a call to one node, and to the others if that one does not answer.
func (x *traffic) call(do func(context.Context, *apiserver.Client) error) error {
	x.nodes = append(slices.Clone(x.nodes[1:]), x.nodes[0])
	var errs []error
	for _, n := range x.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), attemptLimit)
		err := do(ctx, n.Client())
		cancel()
		var wrong wrongValue
		if err == nil || errors.As(err, &wrong) {
			return err
		}
		errs = append(errs, fmt.Errorf("through %s: %w", n.Name, err))
	}
	return errors.Join(errs...)
}

// put creates a secret or replaces it, whatever is there.
func put(ctx context.Context, c *apiserver.Client, name string, value []byte) error {
	object := apiserver.NewSecret("default", name, value)
	_, err := c.Update(ctx, defaultSecrets, object)
	if without(http.StatusNotFound, err) == nil && err != nil {
		_, err = c.Create(ctx, defaultSecrets, object)
	}
	return err
}

// compare reads a secret and compares it with what was acknowledged.
func (x *traffic) compare(ctx context.Context, c *apiserver.Client, name string) error {
	want, there := x.secret[name]
	got, err := c.Get(ctx, defaultSecrets, name)
	switch missing := err != nil && without(http.StatusNotFound, err) == nil; {
	case missing && there:
		return wrongValue{"it is lost"}
	case missing:
		return nil
	case err != nil:
		return err
	case !there:
		return wrongValue{"it is back after it was deleted"}
	case !bytes.Equal(got.Data["value"], want):
		return wrongValue{"it does not have the value that was acknowledged last"}
	}
	return nil
}

// without returns err unless it is an answer with that status.
func without(code int, err error) error {
	var failure *apiserver.StatusError
	if errors.As(err, &failure) && failure.Code == code {
		return nil
	}
	return err
}

// pause does something while there is no traffic.
func (x *traffic) pause(do func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	do()
}

// check demands that all was well so far.
func (x *traffic) check(t *testing.T) {
	t.Helper()
	if !x.mu.TryLock() {
		return // it is paused, or in a step, which the next check sees
	}
	defer x.mu.Unlock()
	if x.err != nil {
		t.Fatal(x.err)
	}
}

// finish ends the traffic and demands that all was well and something was done.
func (x *traffic) finish(t *testing.T) {
	t.Helper()
	x.cancel()
	<-x.done
	x.check(t)
	if x.steps < 8*trafficNames {
		t.Errorf("there were only %d steps, which delete nothing", x.steps)
	}
	t.Logf("%d steps", x.steps)
}
