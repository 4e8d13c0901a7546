package etcdstore_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// events says that something was observed, for those who wait.
type events struct {
	dek.NopObserver
	lost, restored chan struct{}
}

func (e *events) RecordLost()     { e.lost <- struct{}{} }
func (e *events) RecordRestored() { e.restored <- struct{}{} }

// process is a Manager that runs, as a process has one.
type process struct {
	t      *testing.T
	m      *dek.Manager
	sealer *dek.Sealer
	events *events
	store  dek.Burier
	end    func()
}

// run starts a process. It ends with the test, or before.
func (s *server) run(t *testing.T, fake *kektest.Fake, interval time.Duration) *process {
	t.Helper()
	p := &process{t: t, store: s.dial(""), events: &events{lost: make(chan struct{}, 100), restored: make(chan struct{}, 100)}}
	var err error
	p.m, err = dek.New(dek.Config{
		Store: p.store, Keyring: "test", KEKs: map[string]kek.KEK{"main": fake}, Observer: p.events, Interval: interval,
		StoreTimeout: time.Minute, // etcd is slow to start under the race detector
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.sealer, err = p.m.Sealer("main", nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.m.Run(ctx) }()
	p.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		p.m.Close()
		if err := p.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(p.end)
	return p
}

// seal counts one seal and returns the DEK.
func (p *process) seal() *envelope.Key {
	p.t.Helper()
	key, err := p.sealer.Key(p.t.Context())
	if err != nil {
		p.t.Fatalf("Key: %v", err)
	}
	return key
}

func (p *process) opens(key *envelope.Key) {
	p.t.Helper()
	got, err := p.m.OpenKey(p.t.Context(), key.ID())
	if err != nil {
		p.t.Fatalf("OpenKey: %v", err)
	}
	if _, err := got.Open(key.Seal(nil, nil, nil), nil); err != nil {
		p.t.Errorf("Open: %v", err)
	}
}

// present reports whether the store has a record.
func (p *process) present(key *envelope.Key) bool {
	p.t.Helper()
	_, err := p.store.Get(p.t.Context(), key.ID())
	if err != nil && !errors.Is(err, dek.ErrNotFound) && !errors.Is(err, dek.ErrTombstoned) {
		p.t.Fatal(err)
	}
	return err == nil
}

func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fake := kektest.NewFake("main", "1")
	a, b := s.run(t, fake, time.Hour), s.run(t, fake, time.Hour)
	keyA, keyB := a.seal(), b.seal()
	if keyA.ID() == keyB.ID() {
		t.Error("two processes seal with one DEK")
	}
	a.opens(keyB)
	b.opens(keyA)
	if a.m.ClusterID() == 0 || a.m.ClusterID() != b.m.ClusterID() {
		t.Errorf("cluster ids: got %x and %x", a.m.ClusterID(), b.m.ClusterID())
	}
	got, err := s.client().Get(t.Context(), string(a.m.ActiveRecords()[0]))
	if err != nil || len(got.Kvs) != 1 || got.Kvs[0].Lease != 0 {
		t.Errorf("the record in etcd: got %v, %v, want one without a lease", got, err)
	}
}

func TestRemovedByClient(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := s.run(t, kektest.NewFake("main", "1"), time.Hour)
	key := p.seal()
	for range 3 {
		if _, err := s.client().Delete(t.Context(), etcdstore.DefaultPrefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		<-p.events.lost
		<-p.events.restored
		if !p.present(key) {
			t.Error("the record was not put back")
		}
		if again := p.seal(); again != key {
			t.Error("another DEK seals")
		}
	}
}

// TestRestoredEtcd puts a running process's etcd back to an older state, as a restored
// snapshot does: the revision falls. What was persisted before the backup is the first
// record, and what is lost the second, of the DEK that seals.
func TestRestoredEtcd(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fake := kektest.NewFake("main", "1")
	old := s.run(t, fake, time.Hour)
	first := old.seal()
	old.end()
	s.stop()
	backup := s.backup()
	s.start()

	p := s.run(t, fake, time.Hour) // nothing here waits for the interval
	p.opens(first)
	second := p.seal()
	buried := s.bury(t, fake)
	for range 100 { // so that the restored etcd does not come to this revision in the test
		if _, err := s.client().Put(t.Context(), "another key", ""); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	s.restore(backup)
	s.start()

	<-p.events.lost
	<-p.events.restored
	if !p.present(first) || !p.present(second) {
		t.Errorf("after the restore: the first record is there: %v, the second: %v", p.present(first), p.present(second))
	}
	if p.present(buried) {
		t.Error("a record that had a tombstone was put back")
	}
	if key := p.seal(); key != second {
		t.Error("another DEK seals after the restore")
	}
	another := s.run(t, fake, time.Hour)
	another.opens(second)
	another.end() // it would put back what is removed next, too

	// The watch goes on at the lower revision.
	if _, err := s.client().Delete(t.Context(), string(p.store.RecordKey(second.ID()))); err != nil {
		t.Fatal(err)
	}
	<-p.events.lost
	<-p.events.restored
	if !p.present(second) {
		t.Error("the record was not put back a second time")
	}
}

// bury has a process make a DEK and removes its record for good.
func (s *server) bury(t *testing.T, fake *kektest.Fake) *envelope.Key {
	t.Helper()
	p := s.run(t, fake, time.Hour)
	defer p.end()
	key := p.seal()
	stored, err := p.store.Get(t.Context(), key.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.store.Bury(t.Context(), key.ID(), []byte("{}"), stored.Revision); err != nil {
		t.Fatal(err)
	}
	return key
}

// TestEmptyEtcd replaces a running process's etcd by an empty one.
func TestEmptyEtcd(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.stop()
	empty := s.backup()
	s.start()
	p := s.run(t, kektest.NewFake("main", "1"), time.Hour)
	key := p.seal()
	s.stop()
	s.restore(empty)
	s.start()
	<-p.events.lost
	<-p.events.restored
	if !p.present(key) {
		t.Error("the record was not put into the empty etcd")
	}
}

func TestTombstoneStopsSealing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := s.run(t, kektest.NewFake("main", "1"), time.Hour)
	key := p.seal()
	stored, err := p.store.Get(t.Context(), key.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.store.Bury(t.Context(), key.ID(), []byte("{}"), stored.Revision); err != nil {
		t.Fatal(err)
	}
	if err := p.m.Restore(t.Context(), p.store.RecordKey(key.ID())); !errors.Is(err, dek.ErrTombstoned) && !errors.Is(err, dek.ErrUnknownDEK) {
		t.Errorf("Restore: got %v, want ErrTombstoned, or ErrUnknownDEK if the watch was faster", err)
	}
	if again := p.seal(); again == key {
		t.Error("a buried DEK seals")
	}
	if p.present(key) {
		t.Error("the buried record was put back")
	}
}
