package dek_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

const (
	keyring  = "test"
	main     = "main"
	recovery = "recovery"
)

// world is what Managers of one keyring share.
type world struct {
	t        *testing.T
	store    *dektest.Memory
	main     *kektest.Fake
	recovery *kektest.Fake
	seen     *counts
}

// inWorld runs a test in a synctest bubble, whose clock the Managers use.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, &world{
			t: t, store: dektest.NewMemory(), seen: &counts{},
			main: kektest.NewFake(main, "1"), recovery: kektest.NewFake(recovery, "1"),
		})
	})
}

// manager returns a Manager that is closed at the end of the test.
func (w *world) manager(edits ...func(*dek.Config)) *dek.Manager {
	w.t.Helper()
	c := dek.Config{
		Store: w.store, Keyring: keyring, Observer: w.seen,
		KEKs: map[string]kek.KEK{main: w.main, recovery: w.recovery},
		// Tests that count calls do without those of checks.
		CheckInterval: 10 * 365 * 24 * time.Hour,
	}
	for _, edit := range edits {
		edit(&c)
	}
	m, err := dek.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(m.Close)
	return m
}

// running returns a Manager that runs until the end of the test or until stop is
// called, and has read the store.
func (w *world) running(edits ...func(*dek.Config)) (m *dek.Manager, stop func()) {
	w.t.Helper()
	m = w.manager(edits...)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(stop)
	synctest.Wait()
	return m, stop
}

// pass lets time pass on the bubble's clock, and what is due by then happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// sealer returns the Sealer of the main KEK alone.
func (w *world) sealer(m *dek.Manager, others ...string) *dek.Sealer {
	w.t.Helper()
	s, err := m.Sealer(main, others)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// seal counts one seal, which has to succeed, and returns the DEK.
func (w *world) seal(s *dek.Sealer) *envelope.Key {
	w.t.Helper()
	key, err := s.Key(w.t.Context())
	if err != nil {
		w.t.Fatalf("Key: %v", err)
	}
	return key
}

// sealing returns a Manager that runs, a Sealer of it, and the DEK that it seals with.
func (w *world) sealing() (*dek.Manager, *dek.Sealer, *envelope.Key) {
	w.t.Helper()
	m, _ := w.running()
	s := w.sealer(m)
	return m, s, w.seal(s)
}

// unwrapped returns the DEK of a wrapping by the main KEK.
func (w *world) unwrapped(one dek.Wrapping) []byte {
	w.t.Helper()
	secret, err := w.main.Unwrap(w.t.Context(), kek.Wrapping{Version: one.Version, Algorithm: one.Algorithm, Ciphertext: one.Ciphertext})
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

// wrappedBy returns a wrapping by a KEK's current version.
func (w *world) wrappedBy(name string, k kek.KEK, secret []byte) dek.Wrapping {
	w.t.Helper()
	wrapped, err := k.Wrap(w.t.Context(), secret)
	if err != nil {
		w.t.Fatal(err)
	}
	return dek.Wrapping{KEK: name, Version: wrapped.Version, Algorithm: wrapped.Algorithm, Ciphertext: wrapped.Ciphertext}
}

// records returns the records in the store by their ids.
func (w *world) records() map[envelope.ID]*dek.Record {
	w.t.Helper()
	records := map[envelope.ID]*dek.Record{}
	for _, s := range w.store.Records() {
		r, err := dek.ParseRecord(s.Data)
		if err != nil {
			w.t.Fatalf("the store has a record that cannot be parsed: %v", err)
		}
		records[s.ID] = r
	}
	return records
}

// record returns one record, which has to be there.
func (w *world) record(id envelope.ID) *dek.Record {
	w.t.Helper()
	r := w.records()[id]
	if r == nil {
		w.t.Fatalf("the store has no record of DEK %s", id)
	}
	return r
}

// put overwrites a record as a person may.
func (w *world) put(id envelope.ID, r *dek.Record) {
	w.t.Helper()
	data, err := r.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	w.store.Put(id, data)
}

// bury removes a record for good.
func (w *world) bury(id envelope.ID) {
	w.t.Helper()
	stored, err := w.store.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.Bury(w.t.Context(), id, nil, stored.Revision); err != nil {
		w.t.Fatal(err)
	}
}

// opens reports what a Manager opens with an id, which has to be what sealed.
func (w *world) opens(m *dek.Manager, sealed *envelope.Key) {
	w.t.Helper()
	key, err := m.OpenKey(w.t.Context(), sealed.ID())
	if err != nil {
		w.t.Fatalf("OpenKey: %v", err)
	}
	got, err := key.Open(sealed.Seal(nil, []byte("key"), []byte("value")), []byte("key"))
	if err != nil || string(got) != "value" {
		w.t.Fatalf("Open: got %q, %v", got, err)
	}
}

// wantCalls compares how often the main KEK was asked.
func (w *world) wantCalls(wraps, unwraps int) {
	w.t.Helper()
	if got := [2]int{w.main.Calls(kek.OpWrap), w.main.Calls(kek.OpUnwrap)}; got != [2]int{wraps, unwraps} {
		w.t.Errorf("wraps and unwraps: got %d, want %d and %d", got, wraps, unwraps)
	}
}

// counts is an Observer that counts.
type counts struct {
	dek.NopObserver
	mu                                    sync.Mutex
	hits, misses, created, lost, restored int
	calls                                 map[string]int // by KEK, operation and class
}

func (c *counts) CacheHit()         { c.add(&c.hits) }
func (c *counts) CacheMiss()        { c.add(&c.misses) }
func (c *counts) DEKCreated(string) { c.add(&c.created) }
func (c *counts) RecordLost()       { c.add(&c.lost) }
func (c *counts) RecordRestored()   { c.add(&c.restored) }

func (c *counts) KEKCall(name, op string, class kek.Class, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[string]int{}
	}
	c.calls[name+" "+op+" "+class.String()]++
}

func (c *counts) add(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

func (c *counts) get(n *int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *n
}
