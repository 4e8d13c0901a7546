package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
)

// follow watches with a store until the test ends.
func follow(t *testing.T, store dek.Store) (changes <-chan dek.Change, resync chan<- struct{}, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c, r, e := make(chan dek.Change), make(chan struct{}, 1), make(chan error, 1)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		e <- store.Watch(ctx, r, func(change dek.Change) {
			select {
			case c <- change:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-stopped })
	return c, r, e
}

func TestWatchIsToldOfAFall(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.stop()
	backup := s.backup()
	s.start()
	a := s.dial("")
	defer func() { _ = a.Close() }()
	for n := range byte(3) {
		if _, err := a.Create(t.Context(), dektest.ID(n), dektest.Record(dektest.ID(n), 0)); err != nil {
			t.Fatal(err)
		}
	}
	changes, _, ended := follow(t, a)
	if c := <-changes; !c.Whole || len(c.Records) != 3 {
		t.Fatalf("at first: got %+v", c)
	}
	s.stop()
	if err := <-ended; !errors.Is(err, dek.ErrStoreUnavailable) {
		t.Errorf("after etcd ended: got %v, want ErrStoreUnavailable", err)
	}
	s.restore(backup)
	s.start()
	changes, _, _ = follow(t, a)
	if c := <-changes; !c.Whole || len(c.Records) != 0 {
		t.Errorf("after the restore: got %+v, want nothing", c)
	}
	// That reading noticed the fall, and the watch begins once more for it.
	if _, err := a.Create(t.Context(), dektest.ID(9), dektest.Record(dektest.ID(9), 0)); err != nil {
		t.Fatal(err)
	}
	for c := range changes {
		if len(c.Records) == 1 && c.Records[0].ID == dektest.ID(9) {
			break
		}
	}
}

func TestOtherKeysArePassedOver(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a := s.dial("")
	defer func() { _ = a.Close() }()
	changes, _, _ := follow(t, a)
	<-changes
	client := s.client()
	for _, key := range []string{
		"/registry/secrets/a/b", "/etcdseal", "/etcdseal/", "/etcdseal/dek", "/etcdseal/dek/", "/etcdseal/dek/x",
		"/etcdseal/dek/DD000000000000000000000000000001", "/etcdseal/dek/dd000000000000000000000000000001/x",
		"/etcdseal/other/dd000000000000000000000000000001",
	} {
		if _, err := client.Put(t.Context(), key, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Create(t.Context(), dektest.ID(1), dektest.Record(dektest.ID(1), 1)); err != nil {
		t.Fatal(err)
	}
	if c := <-changes; len(c.Records) != 1 || c.Records[0].ID != dektest.ID(1) {
		t.Errorf("the first change: got %+v, want the record", c)
	}
	whole, err := a.List(t.Context())
	if err != nil || len(whole.Records) != 1 || len(whole.Tombstones) != 0 {
		t.Errorf("List: got %+v, %v, want the record alone", whole, err)
	}
}

// TestCompaction compacts revisions that a watch was to begin with.
func TestCompaction(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a := s.dial("").(*etcdstore.Store)
	defer func() { _ = a.Close() }()
	for n := range byte(5) {
		revision, err := a.Create(t.Context(), dektest.ID(n), dektest.Record(dektest.ID(n), n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.client().Compact(t.Context(), revision); err != nil {
			t.Fatal(err)
		}
	}
	err := a.Follow(t.Context(), 1, nil, func(c dek.Change) { t.Errorf("got %+v though revisions are missing", c) })
	if !errors.Is(err, etcdstore.ErrAgain) {
		t.Errorf("got %v, want to read everything again", err)
	}
}

// TestWatchOfTheFuture has a watch come to a revision that etcd does not have any more.
func TestWatchOfTheFuture(t *testing.T) {
	t.Parallel()
	a := newServer(t).dial("").(*etcdstore.Store)
	defer func() { _ = a.Close() }()
	resync := make(chan struct{}, 1)
	resync <- struct{}{}
	err := a.Follow(t.Context(), 1000, resync, func(c dek.Change) { t.Errorf("got %+v", c) })
	if !errors.Is(err, etcdstore.ErrAgain) {
		t.Errorf("got %v, want to read everything again", err)
	}
}

func TestEtcdIsDown(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.stop()
	a := s.dial("")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.Get(ctx, dektest.ID(1)); !errors.Is(err, dek.ErrStoreUnavailable) {
		t.Errorf("Get: got %v, want ErrStoreUnavailable", err)
	}
	if err := a.Ping(ctx); !errors.Is(err, dek.ErrStoreUnavailable) || strings.Contains(err.Error(), "DEK") {
		t.Errorf("Ping: got %v, want ErrStoreUnavailable, and no DEK in it", err)
	}
	s.start()
	if _, err := a.Create(t.Context(), dektest.ID(1), dektest.Record(dektest.ID(1), 1)); err != nil {
		t.Errorf("Create after etcd came up: %v", err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Errorf("Close, twice: %v", err)
	}
	if _, err := a.Get(t.Context(), dektest.ID(1)); err == nil {
		t.Error("Get after Close: no error")
	}
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name string
		c    etcdstore.Config
		ok   bool
	}{
		{"zero values", etcdstore.Config{Endpoints: []string{"http://127.0.0.1:1"}}, true},
		{"no endpoints", etcdstore.Config{}, false},
		{"prefix without a slash", etcdstore.Config{Endpoints: []string{"http://127.0.0.1:1"}, Prefix: "/etcdseal"}, false},
		{"keepalive that etcd punishes", etcdstore.Config{Endpoints: []string{"http://127.0.0.1:1"}, KeepAlive: 9 * time.Second}, false},
	}
	for _, tt := range tests {
		store, err := etcdstore.Dial(tt.c)
		if (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want an error: %v", tt.name, err, !tt.ok)
		}
		if store != nil {
			_ = store.Close()
		}
	}
}

// TestNoOtherKeyIsTouched compares what else is in etcd before and after a keyring's use.
func TestNoOtherKeyIsTouched(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client := s.client()
	for n := range 3 {
		if _, err := client.Put(t.Context(), fmt.Sprintf("/registry/secrets/%d", n), "value"); err != nil {
			t.Fatal(err)
		}
	}
	before, err := client.Get(t.Context(), "/registry/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	a := s.dial("")
	defer func() { _ = a.Close() }()
	first, err := a.Create(t.Context(), dektest.ID(1), dektest.Record(dektest.ID(1), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Bury(t.Context(), dektest.ID(1), []byte("{}"), first); err != nil {
		t.Fatal(err)
	}
	after, err := client.Get(t.Context(), "/registry/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for i, kv := range before.Kvs {
		if kv.String() != after.Kvs[i].String() {
			t.Errorf("got %v, want %v", after.Kvs[i], kv)
		}
	}
}

// TestFallsAreNoticed has answers to other calls say that etcd was put back, while the
// watch's stream says nothing.
func TestFallsAreNoticed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a := s.dial("").(*etcdstore.Store)
	defer func() { _ = a.Close() }()
	changes, _, _ := follow(t, a)
	first := <-changes
	if !first.Whole {
		t.Fatalf("at first: got %+v", first)
	}
	cluster := a.ClusterID()
	for _, fall := range []struct {
		cluster  uint64
		revision int64
	}{{cluster, 0}, {cluster + 1, 1000}} {
		a.Answered(fall.cluster, fall.revision)
		if c := <-changes; !c.Whole {
			t.Errorf("after an answer of cluster %x at %d: got %+v, want everything again", fall.cluster, fall.revision, c)
		}
	}
	if _, err := a.Create(t.Context(), dektest.ID(1), dektest.Record(dektest.ID(1), 1)); err != nil {
		t.Fatal(err)
	}
	for c := range changes { // the watch goes on
		if len(c.Records) == 1 {
			break
		}
	}
}
