package dek_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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

// chaos is a keyring with several processes to which random things happen. It watches
// every write to the store.
type chaos struct {
	*world
	rand      *rand.Rand
	processes []*chaoticProcess
	versions  map[string]int // how often each KEK was rotated
	keys      []*envelope.Key
	history   []string
}

// chaoticProcess has handles of its own of the KEKs that it has, which may lag behind.
type chaoticProcess struct {
	name string
	keks map[string]*kektest.Fake
	m    *dek.Manager
	stop func()
}

var chaoticKEKs = []string{"a", "b", "c"}

// guarded is a process's store: what it writes is judged by what it knows.
type guarded struct {
	*dektest.Memory
	t    *testing.T
	from *chaoticProcess
	ends *chaos
}

func (s *guarded) Update(ctx context.Context, id envelope.ID, data []byte, revision int64) (int64, error) {
	before, err := s.Get(ctx, id)
	if err != nil {
		return 0, err
	}
	if s.ends.rand.IntN(20) == 0 {
		return 0, dek.ErrStoreUnavailable
	}
	updated, err := s.Memory.Update(ctx, id, data, revision)
	if err == nil && before.Revision == revision {
		s.ends.judge(s.t, s.from, before.Data, data)
	}
	if err == nil && s.ends.rand.IntN(20) == 0 {
		return 0, dek.ErrStoreUnavailable // done, and the answer lost
	}
	return updated, err
}

// judge checks that nothing was removed that the process does not know, and that a
// wrapping stays that can be used.
func (c *chaos) judge(t *testing.T, by *chaoticProcess, before, after []byte) {
	old, errOld := dek.ParseRecord(before)
	next, errNext := dek.ParseRecord(after)
	if errOld != nil || errNext != nil {
		t.Errorf("%s wrote a record that cannot be read: %v, %v", by.name, errOld, errNext)
		return
	}
	for _, w := range old.Wrappings {
		kept := slices.ContainsFunc(next.Wrappings, func(o dek.Wrapping) bool { return o.KEK == w.KEK && o.Version == w.Version })
		if !kept && by.keks[w.KEK] == nil {
			t.Errorf("%s removed the %s, which it does not know", by.name, w)
		}
	}
	if !usable(next) {
		t.Errorf("%s left a record without a wrapping that can be used: %s", by.name, wrappersOf(next))
	}
}

// usable unwraps a record by KEKs that always answer.
func usable(r *dek.Record) bool {
	for _, w := range r.Wrappings {
		key, err := kektest.NewFake(w.KEK, "0").Unwrap(context.Background(), kek.Wrapping{
			Version: w.Version, Algorithm: w.Algorithm, Ciphertext: w.Ciphertext, Annotations: w.Annotations,
		})
		if err == nil && envelope.DeriveID(key, nil, keyring) == r.ID {
			return true
		}
	}
	return false
}

// start begins a process with random KEKs, all of them at their true versions.
func (c *chaos) start() {
	p := &chaoticProcess{name: fmt.Sprintf("process %d", len(c.history)), keks: map[string]*kektest.Fake{}}
	for _, name := range chaoticKEKs {
		if len(p.keks) == 0 || c.rand.IntN(3) > 0 {
			p.keks[name] = kektest.NewFake(name, fmt.Sprint(c.versions[name]))
		}
	}
	p.m, p.stop = c.running(func(config *dek.Config) {
		config.Store = &guarded{Memory: c.store, t: c.t, from: p, ends: c}
		config.KEKs = map[string]kek.KEK{}
		for name, k := range p.keks {
			config.KEKs[name] = k
		}
	})
	c.processes = append(c.processes, p)
	c.configure(p)
}

// configure gives a process random rules, and has it seal by them.
func (c *chaos) configure(p *chaoticProcess) {
	names := slices.Sorted(maps.Keys(p.keks))
	c.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	set := dek.Set{KEK: names[0], Recovery: names[1 : 1+c.rand.IntN(len(names))]}
	if err := p.m.WrapBy(set); err != nil {
		c.t.Fatal(err)
	}
	s, err := p.m.Sealer(set.KEK, set.Recovery)
	if err != nil {
		c.t.Fatal(err)
	}
	p.m.Use(s)
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	if key, err := s.Key(ctx); err == nil {
		c.keys = append(c.keys, key)
	}
}

// event does one thing at random.
func (c *chaos) event() {
	p := c.processes[c.rand.IntN(len(c.processes))]
	name := slices.Sorted(maps.Keys(p.keks))[c.rand.IntN(len(p.keks))]
	what := []string{"rotate", "notice", "back", "start", "stop", "configure", "down", "up", "order", "pass"}[c.rand.IntN(10)]
	c.history = append(c.history, fmt.Sprintf("%s %s %s", what, p.name, name))
	switch what {
	case "rotate": // one process sees it first
		c.versions[name]++
		p.keks[name].Rotate(fmt.Sprint(c.versions[name]))
	case "notice":
		p.keks[name].Rotate(fmt.Sprint(c.versions[name]))
	case "back":
		c.versions[name] = max(0, c.versions[name]-1)
		p.keks[name].Rotate(fmt.Sprint(c.versions[name]))
	case "start":
		if len(c.processes) < 4 {
			c.start()
		}
	case "stop":
		if len(c.processes) > 1 {
			p.stop()
			p.m.Close()
			c.processes = slices.DeleteFunc(c.processes, func(o *chaoticProcess) bool { return o == p })
		}
	case "configure":
		c.configure(p)
	case "down":
		p.keks[name].Fail([]kek.Class{kek.Unavailable, kek.Denied, kek.Throttled}[c.rand.IntN(3)])
	case "up":
		p.keks[name].Fail(0)
	case "order":
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Duration(c.rand.IntN(300))*time.Millisecond)
		_, err := p.m.Rotate(ctx, dek.RotateOptions{})
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, dek.ErrStoreUnavailable) {
			c.t.Errorf("Rotate: %v", err)
		}
	}
	c.pass(time.Duration(c.rand.IntN(20)) * time.Minute / time.Duration(1+c.rand.IntN(50)))
}

// TestRandomEvents keeps every DEK within reach, and every wrapping by a KEK that its
// remover does not know, whatever happens in whatever order; and when nothing happens any
// more, nothing is written any more.
func TestRandomEvents(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := &chaos{world: w, rand: rand.New(&lockedSource{source: rand.NewPCG(seed, 1)}), versions: map[string]int{}}
				c.start()
				for range 60 {
					c.event()
				}
				for _, r := range w.records() {
					if !usable(r) {
						t.Errorf("DEK %s is lost: %s", r.ID, wrappersOf(r))
					}
				}
				for _, key := range c.keys {
					if w.records()[key.ID()] == nil {
						t.Errorf("DEK %s has no record", key.ID())
					}
				}
				for _, p := range c.processes { // all is well and known again
					for name, k := range p.keks {
						k.Fail(0)
						k.Rotate(fmt.Sprint(c.versions[name]))
					}
				}
				w.pass(3 * time.Hour)
				updates := w.updates()
				w.pass(3 * time.Hour)
				if n := updates.Load(); n != 0 {
					t.Errorf("%d updates in hours of peace, want none", n)
				}
				if t.Failed() {
					t.Logf("events: %q", c.history)
				}
				synctest.Wait()
			})
		})
	}
}

// lockedSource is a source that processes share.
type lockedSource struct {
	mu     sync.Mutex
	source rand.Source
}

func (s *lockedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source.Uint64()
}
