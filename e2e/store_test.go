package e2e

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/pki"
)

// store is an etcd client of a proxy, and what must be readable through it.
type store struct {
	lab    *lab
	client *clientv3.Client
	values map[string][]byte
}

// newStore is a store on a proxy that listens without TLS.
func newStore(t *testing.T, l *lab, proxy *etcdseal.Proxy) *store {
	t.Helper()
	return &store{
		lab:    l,
		client: proxy.Client(t, l.authority, pki.Files{}),
		values: map[string][]byte{},
	}
}

// put writes count secrets whose names begin with label.
func (s *store) put(t *testing.T, label string, count int) {
	t.Helper()
	for i := range count {
		key := fmt.Sprintf("%s%s-%03d", etcdseal.SecretsPrefix, label, i)
		value := s.lab.secret(t, label, 100*i)
		if _, err := s.client.Put(call(t), key, string(value)); err != nil {
			t.Fatalf("putting %s: %v", key, err)
		}
		s.values[key] = value
	}
}

// putTogether is put with all values at once, so that the first of them wait for
// the DEK together.
func (s *store) putTogether(t *testing.T, label string, count int) {
	t.Helper()
	failures := make(chan error, count)
	for i := range count {
		key := fmt.Sprintf("%s%s-%03d", etcdseal.SecretsPrefix, label, i)
		value := s.lab.secret(t, label, 100*i)
		s.values[key] = value
		ctx := call(t)
		go func() {
			_, err := s.client.Put(ctx, key, string(value))
			failures <- err
		}()
	}
	for range count {
		if err := <-failures; err != nil {
			t.Fatalf("putting %d values at once: %v", count, err)
		}
	}
}

// patientPut puts one value when sealing may be stopped for a while: it tries
// again while the answer is Unavailable or does not come, until ctx ends.
func patientPut(ctx context.Context, client *clientv3.Client, key, value string) error {
	ticker := time.NewTicker(readPause)
	defer ticker.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, absenceLimit)
		_, err := client.Put(attempt, key, value)
		cancel()
		if err == nil || !retriable(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// retriable reports whether a call failed in a way that may pass by itself.
func retriable(err error) bool {
	if err == context.DeadlineExceeded {
		return true
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// check reads every value by name and by one list through client.
func (s *store) check(t *testing.T, client *clientv3.Client) {
	t.Helper()
	for key, want := range s.values {
		response, err := client.Get(call(t), key)
		switch {
		case err != nil:
			t.Errorf("getting %s: %v", key, err)
		case len(response.Kvs) != 1:
			t.Errorf("getting %s: %d values, want 1", key, len(response.Kvs))
		case !bytes.Equal(response.Kvs[0].Value, want):
			t.Errorf("getting %s: another value", key)
		}
	}
	response, err := client.Get(call(t), etcdseal.SecretsPrefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatalf("listing secrets: %v", err)
	}
	if len(response.Kvs) != len(s.values) {
		t.Errorf("list has %d values, want %d", len(response.Kvs), len(s.values))
	}
	for _, kv := range response.Kvs {
		if want, known := s.values[string(kv.Key)]; known && !bytes.Equal(kv.Value, want) {
			t.Errorf("list: another value of %s", kv.Key)
		}
	}
}

// checkSealed demands that etcd holds an envelope for every value.
func (s *store) checkSealed(t *testing.T) {
	t.Helper()
	pairs := etcd.Pairs(t, s.lab.raw, etcdseal.SecretsPrefix)
	for key, want := range s.values {
		value := pairs[key]
		if _, err := etcd.EnvelopeID(value); err != nil {
			t.Errorf("stored value of %s: %v", key, err)
		}
		if len(value) != len(want)+etcd.EnvelopeOverhead {
			t.Errorf("stored value of %s has %d bytes, want %d more than %d",
				key, len(value), etcd.EnvelopeOverhead, len(want))
		}
	}
}

// writer puts secrets through a proxy, patiently, from a goroutine of its own,
// until stopped.
type writer struct {
	end    func() // closes ending, once
	ending chan struct{}
	cancel context.CancelFunc // cuts off the put under way
	done   sync.WaitGroup

	// mu guards the fields below.
	mu      sync.Mutex
	phase   int
	values  map[int]map[string][]byte // acknowledged values by phase of their start
	refused error                     // first failure that no retry can help
}

// startWriter starts a writer whose keys begin with label.
func startWriter(t *testing.T, s *store, label string) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{ending: make(chan struct{}), cancel: cancel, values: map[int]map[string][]byte{}}
	w.end = sync.OnceFunc(func() { close(w.ending) })
	value := s.lab.secret(t, "writer", 64)
	w.done.Go(func() {
		ticker := time.NewTicker(readPause)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-w.ending:
				return
			case <-ticker.C:
			}
			w.mu.Lock()
			phase := w.phase
			w.mu.Unlock()
			key := fmt.Sprintf("%s%s-%06d", etcdseal.SecretsPrefix, label, i)
			w.note(phase, key, value, patientPut(ctx, s.client, key, string(value)))
		}
	})
	t.Cleanup(w.stop)
	return w
}

// note records the outcome of one put.
func (w *writer) note(phase int, key string, value []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		if w.values[phase] == nil {
			w.values[phase] = map[string][]byte{}
		}
		w.values[phase][key] = value
	case w.refused == nil:
		w.refused = fmt.Errorf("putting %s: %w", key, err)
	}
}

// enter begins the next phase: puts that start from now on are recorded there.
func (w *writer) enter(phase int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = phase
}

// acknowledged is the number of values acknowledged in a phase.
func (w *writer) acknowledged(phase int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.values[phase])
}

// stop ends the writer after the put under way, and waits for it; it may be called
// twice. A put that was cut off instead could still happen afterwards, after the
// test has looked at what etcd holds: only one that takes longer than settleLimit
// is, and it counts as refused.
func (w *writer) stop() {
	w.end()
	limit := time.AfterFunc(settleLimit, w.cancel)
	defer limit.Stop()
	w.done.Wait()
}
