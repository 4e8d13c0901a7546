package etcdstore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// slow is a KEK that takes its time, as one behind a network does.
type slow struct{ kek.KEK }

func (k slow) Wrap(ctx context.Context, key []byte) (kek.Wrapping, error) {
	time.Sleep(latency)
	return k.KEK.Wrap(ctx, key)
}

func (k slow) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	time.Sleep(latency)
	return k.KEK.Unwrap(ctx, w)
}

// latency is that of every key operation.
const latency = 50 * time.Millisecond

// TestRotation has several processes rotate 20 DEKs at once on a real etcd: 60 key
// operations in all, and no value is written.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fake := kektest.NewFake("main", "1")
	open := func() *dek.Manager {
		store := s.dial("")
		m, err := dek.New(dek.Config{Store: store, Keyring: "test", KEKs: map[string]kek.KEK{"main": slow{fake}}, StoreTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			m.Close()
			if err := store.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		if err := m.WrapBy(dek.Set{KEK: "main"}); err != nil {
			t.Fatal(err)
		}
		return m
	}
	var keys []*envelope.Key
	for i := range 20 {
		sealer, err := open().Sealer("main", nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := sealer.Key(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		name := fmt.Sprintf("/registry/secrets/default/%d", i)
		if _, err := s.client().Put(t.Context(), name, string(key.Seal(nil, []byte(name), []byte("value")))); err != nil {
			t.Fatal(err)
		}
	}
	revisions := s.modRevisions(t)
	before := fake.Calls(kek.OpWrap) + fake.Calls(kek.OpUnwrap)
	fake.Rotate("2")
	began := time.Now()
	var all sync.WaitGroup
	for range 3 {
		m := open()
		all.Go(func() {
			if done, err := m.Rotate(t.Context(), dek.RotateOptions{}); err != nil || len(done.Failed) != 0 {
				t.Errorf("Rotate: got %+v, %v", done, err)
			}
		})
	}
	all.Wait()
	t.Logf("20 DEKs rotated by 3 processes in %s", time.Since(began))
	if n := fake.Calls(kek.OpWrap) + fake.Calls(kek.OpUnwrap) - before; n != 60 {
		t.Errorf("got %d key operations, want 60", n)
	}
	for name, revision := range s.modRevisions(t) {
		if revisions[name] != revision {
			t.Errorf("%s was written", name)
		}
	}
	fake.FailVersion("1", kek.NotFound)
	last := open()
	for _, key := range keys {
		if _, err := last.OpenKey(t.Context(), key.ID()); err != nil {
			t.Error(err)
		}
	}
}

// modRevisions returns the values' mod_revisions.
func (s *server) modRevisions(t *testing.T) map[string]int64 {
	t.Helper()
	got, err := s.client().Get(t.Context(), "/registry/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != 20 {
		t.Fatalf("reading the values: %d, %v", len(got.Kvs), err)
	}
	revisions := map[string]int64{}
	for _, kv := range got.Kvs {
		revisions[string(kv.Key)] = kv.ModRevision
	}
	return revisions
}
