package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/migrate"
)

// later is when the DEKs that are made now are not sealed with any more.
func later() time.Time { return time.Now().Add(dek.DefaultLifetime + 2*migrate.DefaultMargin) }

// grave is a store that a test disturbs in the moment of a removal.
type grave struct {
	dek.Burier
	claimed func()       // after a record was claimed
	before  func() error // before one is removed; an error is the answer
	after   func() error // after; likewise
	buried  int
}

func (g *grave) Update(ctx context.Context, id envelope.ID, data []byte, revision int64) (int64, error) {
	revision, err := g.Burier.Update(ctx, id, data, revision)
	if g.claimed != nil {
		do := g.claimed
		g.claimed = nil
		do()
	}
	return revision, err
}

func (g *grave) Bury(ctx context.Context, id envelope.ID, tombstone []byte, revision int64) error {
	g.buried++
	if g.before != nil {
		if err := g.before(); err != nil {
			return err
		}
	}
	err := g.Burier.Bury(ctx, id, tombstone, revision)
	if g.after != nil && err == nil {
		err = g.after()
	}
	return err
}

// diary is an Auditor.
type diary struct {
	mu   sync.Mutex
	kept []string
	fail bool
}

func (d *diary) Audit(e dek.Event) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept = append(d.kept, fmt.Sprintf("%s %s", e.Kind, e.Why))
	if d.fail {
		return errors.New("the disk is full")
	}
	return nil
}

// collector returns a Collector whose clock is beyond the end of all DEKs.
func (l *lab) collector(p *process, change ...func(*migrate.CollectorConfig)) *migrate.Collector {
	l.Helper()
	c := migrate.CollectorConfig{
		KV: l.client, Store: p.store.(dek.Burier), Keyring: "test", Now: later,
		Settle: time.Millisecond, // tests that write after a removal do so before it is watched
	}
	for _, f := range change {
		f(&c)
	}
	collector, err := migrate.NewCollector(c)
	if err != nil {
		l.Fatal(err)
	}
	return collector
}

// plan returns what a Collector would do, with one record only.
func (l *lab) plan(c *migrate.Collector) (*migrate.Collection, *migrate.Collected) {
	l.Helper()
	plan, err := c.Plan(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	if len(plan.Records) != 1 {
		l.Fatalf("%d records, want one", len(plan.Records))
	}
	return plan, plan.Records[0]
}

// collect has a Collector remove the one record if it is due.
func (l *lab) collect(c *migrate.Collector) *migrate.Collected {
	l.Helper()
	plan, r := l.plan(c)
	if err := c.Collect(l.Context(), plan); err != nil {
		l.Fatal(err)
	}
	if plan.Unchecked != nil {
		l.Errorf("unchecked: %v", plan.Unchecked)
	}
	return r
}

// dek makes a process's DEK and returns it. No value is under it.
func (l *lab) dek(p *process) *envelope.Key {
	l.Helper()
	key, err := p.sealer.Key(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	return key
}

// compact makes etcd retain nothing but what is there.
func (l *lab) compact() {
	l.Helper()
	if _, err := l.client.Compact(l.Context(), l.put3("/any", "x")); err != nil {
		l.Fatal(err)
	}
}

func sealed(key *envelope.Key, at string) string {
	return string(key.Seal(nil, []byte(at), []byte("hunter2")))
}

func TestCollectWhatIsUsed(t *testing.T) {
	l := newLab(t)
	p := l.process()
	key := l.dek(p)
	c := l.collector(p)
	const elsewhere = "/no/rule/is/about/this"
	steps := []struct {
		name       string
		do         func()
		fate       migrate.Fate
		live, past int64
	}{
		{"nothing is under it", func() {}, migrate.FateDue, 0, 0},
		{"a value is", func() { l.put(prefix+"a", sealed(key, prefix+"a")) }, migrate.FateUsed, 1, 1},
		{"it was replaced", func() { l.put(prefix+"a", "plain") }, migrate.FateUsed, 0, 1},
		{"that was compacted", l.compact, migrate.FateDue, 0, 0},
		{"no rule is about the key", func() { l.put(elsewhere, sealed(key, elsewhere)); l.compact() }, migrate.FateUsed, 1, 1},
		{"an older revision than the compaction's is retained", func() { l.put(elsewhere, "plain") }, migrate.FateUsed, 0, 1},
		{"it is gone", l.compact, migrate.FateDue, 0, 0},
		{"a truncated envelope opens under nothing", func() { l.put(elsewhere, sealed(key, elsewhere)[:30]) }, migrate.FateDue, 0, 0},
	}
	for _, s := range steps {
		s.do()
		if _, got := l.plan(c); got.Fate != s.fate || got.Live != s.live || got.Past != s.past || (got.Key == nil) == (got.Live+got.Past > 0) {
			t.Errorf("%s: %s, %d live, %d past, key %q; want %s, %d, %d", s.name, got.Fate, got.Live, got.Past, got.Key, s.fate, s.live, s.past)
		}
	}
	l.put(elsewhere, "\x00es\x02"+string(make([]byte, 80)))
	_, err := c.Plan(t.Context())
	contains(t, err, "newer etcdseal")
}

// TestCollectMargin has a record go only when it is past its end by the margin.
func TestCollectMargin(t *testing.T) {
	l := newLab(t)
	p := l.process()
	l.dek(p)
	now := time.Now()
	c := l.collector(p, func(c *migrate.CollectorConfig) { c.Now = func() time.Time { return now } })
	_, r := l.plan(c)
	until := r.Record.SealUntil.Add(migrate.DefaultMargin)
	for at, want := range map[time.Time]migrate.Fate{
		now: migrate.FateSeals, r.Record.SealUntil: migrate.FateSeals, until: migrate.FateSeals, until.Add(time.Nanosecond): migrate.FateDue,
	} {
		now = at
		if _, got := l.plan(c); got.Fate != want {
			t.Errorf("at %s: %s, want %s", at, got.Fate, want)
		}
	}
}

// TestCollect removes a record; processes that run respect that, and an import undoes it.
func TestCollect(t *testing.T) {
	l := newLab(t)
	p, other := l.process(), l.process()
	key := l.dek(p)
	listing, err := dek.List(t.Context(), p.store, "test")
	if err != nil {
		t.Fatal(err)
	}
	var d diary
	store := &grave{Burier: p.store.(dek.Burier), before: func() error {
		if diff := cmp.Diff([]string{"bury gc"}, d.kept); diff != "" {
			t.Errorf("written down before the removal (-want +got):\n%s", diff)
		}
		return nil
	}}
	c := l.collector(p, func(c *migrate.CollectorConfig) { c.Store, c.Auditor = store, &d })
	if r := l.collect(c); r.Fate != migrate.FateBuried || store.buried != 1 {
		t.Fatalf("%s: %v", r.Fate, r.Err)
	}
	if _, err := other.manager.OpenKey(t.Context(), key.ID()); !errors.Is(err, dek.ErrTombstoned) {
		t.Errorf("opening afterwards: %v", err)
	}
	if err := p.manager.Restore(t.Context(), p.store.RecordKey(key.ID())); !errors.Is(err, dek.ErrTombstoned) {
		t.Errorf("putting it back as a process that knows it: %v", err)
	}
	if again := l.dek(p); again.ID() == key.ID() {
		t.Error("it is sealed with")
	}
	// Somebody puts an old envelope back.
	l.put(prefix+"old", sealed(key, prefix+"old"))
	export := listing.Export(time.Now())
	if done, err := other.manager.Import(t.Context(), export, dek.ImportOptions{}); err != nil || done[0].Action != dek.ImportRefused || !errors.Is(done[0].Err, dek.ErrTombstoned) {
		t.Errorf("importing without more: %+v, %v", done, err)
	}
	third := l.process()
	done, err := third.manager.Import(t.Context(), export, dek.ImportOptions{Undo: []envelope.ID{key.ID()}})
	if err != nil || done[0].Action != dek.ImportExhumed {
		t.Fatalf("undoing: %+v, %v", done, err)
	}
	stored, err := p.store.Get(t.Context(), key.ID())
	if err != nil || string(stored.Data) != string(listing.Records[0].Data) {
		t.Errorf("put back is not what was there: %v", err)
	}
	if got := l.verify(l.engine(third, true), false); len(got) != 0 {
		t.Errorf("after the import: %v", got)
	}
}

// TestCollectRaces has things happen at each step of a removal.
func TestCollectRaces(t *testing.T) {
	lost := fmt.Errorf("the answer is lost: %w", dek.ErrStoreUnavailable)
	tests := []struct {
		name  string
		setup func(l *lab, g *grave, p *process, key *envelope.Key)
		fate  migrate.Fate
		there bool // the record, afterwards
	}{
		{"a value is written while it is looked for values", func(l *lab, g *grave, _ *process, key *envelope.Key) {
			g.claimed = func() { l.put(prefix+"a", sealed(key, prefix+"a")) }
		}, migrate.FateUsed, true},
		{"a value was written and deleted meanwhile", func(l *lab, g *grave, _ *process, key *envelope.Key) {
			g.claimed = func() {
				l.put(prefix+"a", sealed(key, prefix+"a"))
				_, _ = l.client.Delete(l.Context(), prefix+"a")
			}
		}, migrate.FateUsed, true},
		{"a value is written right before the removal", func(l *lab, g *grave, _ *process, key *envelope.Key) {
			g.before = func() error { l.put(prefix+"a", sealed(key, prefix+"a")); return nil }
		}, migrate.FatePutBack, true},
		{"a value is written right after the removal", func(l *lab, g *grave, _ *process, key *envelope.Key) {
			g.after = func() error { l.put(prefix+"a", sealed(key, prefix+"a")); return nil }
		}, migrate.FatePutBack, true},
		{"a value is written, and compacted into the past", func(l *lab, g *grave, _ *process, key *envelope.Key) {
			g.after = func() error { l.put(prefix+"a", sealed(key, prefix+"a")); l.compact(); return nil }
		}, migrate.FatePutBack, true},
		{"the record is written meanwhile", func(l *lab, g *grave, p *process, key *envelope.Key) {
			g.claimed = func() {
				stored, err := p.store.Get(l.Context(), key.ID())
				if err != nil {
					l.Fatal(err)
				}
				l.put(string(p.store.RecordKey(key.ID())), string(stored.Data))
			}
		}, migrate.FateFailed, true},
		{"the answer to the removal is lost", func(_ *lab, g *grave, _ *process, _ *envelope.Key) {
			g.after = func() error { return lost }
		}, migrate.FateBuried, false},
		{"the removal does not get there", func(_ *lab, g *grave, _ *process, _ *envelope.Key) {
			g.before = func() error { return lost }
		}, migrate.FateFailed, true},
		{"etcd refuses", func(_ *lab, g *grave, _ *process, _ *envelope.Key) {
			g.before = func() error { return errors.New("permission denied") }
		}, migrate.FateFailed, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			p := l.process()
			key := l.dek(p)
			g := &grave{Burier: p.store.(dek.Burier)}
			tt.setup(l, g, p, key)
			before, err := p.store.Get(t.Context(), key.ID())
			if err != nil {
				t.Fatal(err)
			}
			c := l.collector(p, func(c *migrate.CollectorConfig) { c.Store = g })
			if r := l.collect(c); r.Fate != tt.fate {
				t.Errorf("%s (%v), want %s", r.Fate, r.Err, tt.fate)
			}
			after, err := p.store.Get(t.Context(), key.ID())
			if tt.there != (err == nil) {
				t.Fatalf("the record: %v, want it there: %t", err, tt.there)
			}
			if tt.there && tt.fate != migrate.FateFailed && string(after.Data) != string(before.Data) {
				t.Error("the record is not as it was")
			}
			if got := l.verify(l.engine(l.process(), true), true); len(got) != 0 {
				t.Errorf("afterwards: %v", got)
			}
		})
	}
}

// TestCollectInterrupted is interrupted in the middle of a removal: that one is carried
// out and watched, and the other record is left, which is no success.
func TestCollectInterrupted(t *testing.T) {
	l := newLab(t)
	p := l.process()
	keys := map[envelope.ID]*envelope.Key{}
	for _, key := range []*envelope.Key{l.dek(p), l.dek(l.process())} {
		keys[key.ID()] = key
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := &grave{Burier: p.store.(dek.Burier)}
	g.before = func() error { cancel(); return nil }
	c := l.collector(p, func(c *migrate.CollectorConfig) { c.Store = g })
	plan, err := c.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A value under the DEK whose record goes first.
	g.after = func() error {
		first := plan.Records[0].ID
		l.put(prefix+"a", sealed(keys[first], prefix+"a"))
		return nil
	}
	if err := c.Collect(ctx, plan); err != nil {
		t.Fatal(err)
	}
	first, second := plan.Records[0], plan.Records[1]
	if first.Fate != migrate.FatePutBack || plan.Unchecked != nil {
		t.Errorf("the one that was being removed: %s (%v), unchecked: %v", first.Fate, first.Err, plan.Unchecked)
	}
	if second.Fate != migrate.FateFailed || !errors.Is(second.Err, context.Canceled) {
		t.Errorf("the one that was left: %s (%v)", second.Fate, second.Err)
	}
	if got := l.verify(l.engine(l.process(), true), true); len(got) != 0 {
		t.Errorf("afterwards: %v", got)
	}
}

// silent is a store that does not answer.
type silent struct{ dek.Burier }

func (silent) List(ctx context.Context) (dek.Change, error) {
	if _, ok := ctx.Deadline(); !ok {
		return dek.Change{}, errors.New("nothing bounds this call")
	}
	<-ctx.Done()
	return dek.Change{}, ctx.Err()
}

// TestCollectSilence does not wait for ever for a store that does not answer.
func TestCollectSilence(t *testing.T) {
	l := newLab(t)
	p := l.process()
	c := l.collector(p, func(c *migrate.CollectorConfig) {
		c.Store, c.Timeout = silent{p.store.(dek.Burier)}, time.Millisecond
	})
	_, err := c.Plan(t.Context())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestCollectUnwritten removes nothing that cannot be written down.
func TestCollectUnwritten(t *testing.T) {
	l := newLab(t)
	p := l.process()
	key := l.dek(p)
	c := l.collector(p, func(c *migrate.CollectorConfig) { c.Auditor = &diary{fail: true} })
	r := l.collect(c)
	contains(t, r.Err, "the disk is full")
	if _, err := p.store.Get(t.Context(), key.ID()); r.Fate != migrate.FateFailed || err != nil {
		t.Errorf("%s, and the record: %v", r.Fate, err)
	}
}

// TestCollectTwice has two Collectors at once, of which one wins, and one that begins while a
// process rewraps the record.
func TestCollectTwice(t *testing.T) {
	l := newLab(t)
	p := l.process()
	l.dek(p)
	var second *migrate.Collected
	g := &grave{Burier: p.store.(dek.Burier)}
	g.claimed = func() { second = l.collect(l.collector(p)) }
	stale, old := l.plan(l.collector(p))
	if first := l.collect(l.collector(p, func(c *migrate.CollectorConfig) { c.Store = g })); first.Fate != migrate.FateBuried {
		t.Errorf("the first: %s (%v)", first.Fate, first.Err)
	}
	if second.Fate != migrate.FateFailed {
		t.Errorf("the second: %s", second.Fate)
	}
	contains(t, second.Err, "another process is changing the record")
	if err := l.collector(p).Collect(t.Context(), stale); err != nil || old.Fate != migrate.FateFailed || !errors.Is(old.Err, dek.ErrTombstoned) {
		t.Errorf("an old plan: %s (%v), %v", old.Fate, old.Err, err)
	}
}

// TestCollectStrange leaves alone what it cannot read.
func TestCollectStrange(t *testing.T) {
	l := newLab(t)
	p := l.process()
	l.put("/etcdseal/dek/000102030405060708090a0b0c0d0e0f", `{"version":2}`)
	if r := l.collect(l.collector(p)); r.Fate != migrate.FateStrange || r.Err == nil {
		t.Errorf("%s: %v", r.Fate, r.Err)
	}
}

// TestCollectAmongWriters has running processes, which think that their DEKs are good for
// months yet, write values in the moments of removals, as if the DEKs had ended. No value
// may be left that cannot be opened.
func TestCollectAmongWriters(t *testing.T) {
	l := newLab(t)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer func() { stop(); writers.Wait() }()
	var signals []chan struct{}
	for w := range 3 {
		p := l.process()
		l.dek(p)
		signal := make(chan struct{}, 1)
		signals = append(signals, signal)
		writers.Go(func() { _ = p.manager.Run(ctx) })
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-signal:
				}
				at := fmt.Sprintf("%s%d/%d", prefix, w, i)
				if key, err := p.sealer.Key(ctx); err == nil { // else its record was removed in the moment when it was made
					_, _ = l.client.Put(ctx, at, sealed(key, at))
				}
			}
		})
	}
	write := func(w int) {
		select {
		case signals[w%len(signals)] <- struct{}{}:
		default: // it is at it
		}
	}
	n := 0
	g := &grave{Burier: l.process().store.(dek.Burier)}
	g.before = func() error { n++; write(n); return nil }
	g.after = func() error { write(n + 1); return nil }
	reader := l.process()
	c := l.collector(reader, func(c *migrate.CollectorConfig) { c.Store, c.Settle = g, 3*time.Second }) // many times what a write takes that is under way
	counts := map[migrate.Fate]int{}
	for round := range 6 {
		if _, err := l.client.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		l.compact()
		plan, err := c.Plan(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if round%2 == 1 {
			g.claimed = func() { write(round) }
		}
		if err := c.Collect(ctx, plan); err != nil || plan.Unchecked != nil {
			t.Fatal(err, plan)
		}
		for _, r := range plan.Records {
			counts[r.Fate]++
		}
		if got := l.verify(l.engine(l.process(), true), false); len(got) != 0 {
			t.Fatalf("values that cannot be opened: %v", got)
		}
	}
	if counts[migrate.FateBuried] == 0 || counts[migrate.FatePutBack]+counts[migrate.FateUsed] == 0 {
		t.Errorf("nothing was raced for: %v", counts)
	}
	t.Log(counts)
}
