package dek_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

var errFull = errors.New("no space")

// trail is an Auditor, and a KEK that notes what its calls are for.
type trail struct {
	kek.KEK

	mu    sync.Mutex // guards all below
	lines []string
	fails map[dek.EventKind]error
}

func (a *trail) Audit(e dek.Event) error {
	a.add("%s %s %s %s %s %s", e.Kind, e.DEK, e.KEK, e.Version, e.Why, e.Class)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fails[e.Kind]
}

func (a *trail) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	p := kek.PurposeOf(ctx)
	a.add("wrap %s for %s", p.DEK, p.Why)
	return a.KEK.Wrap(ctx, dek)
}

func (a *trail) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	p := kek.PurposeOf(ctx)
	a.add("unwrap %s for %s", p.DEK, p.Why)
	return a.KEK.Unwrap(ctx, w)
}

func (a *trail) add(format string, values ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lines = append(a.lines, fmt.Sprintf(format, values...))
}

// fail makes the lines of the kinds given fail, and no others.
func (a *trail) fail(kinds ...dek.EventKind) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fails = make(map[dek.EventKind]error)
	for _, kind := range kinds {
		a.fails[kind] = errFull
	}
}

// want compares what was written since the last time.
func (a *trail) want(t *testing.T, what string, lines ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if diff := cmp.Diff(lines, a.lines); diff != "" {
		t.Errorf("%s: the trail differs (-want +got):\n%s", what, diff)
	}
	a.lines = nil
}

func TestAudit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := &trail{KEK: w.main}
		audited := func(c *dek.Config) { c.Auditor, c.KEKs = a, map[string]kek.KEK{main: a} }
		first := w.seal(w.sealer(w.manager(audited)))
		id := first.ID().String()
		a.want(t, "the first seal", "wrap "+id+" for new DEK", "unwrap "+id+" for proof", "create "+id+" main 1 new DEK ok")
		m, _ := w.running(audited)
		w.opens(m, first)
		w.opens(m, first)
		a.want(t, "another process opens", "unwrap "+id+" for cache miss")
		changed := *w.record(first.ID())
		changed.Wrappings = []dek.Wrapping{w.wrappedBy(main, w.main, make([]byte, envelope.KeySize))}
		w.put(first.ID(), &changed)
		w.pass(0)
		a.want(t, "a swapped wrapping",
			"unwrap "+id+" for changed record", "refuse "+id+" main 1 mismatch corrupt", "unwrap "+id+" for changed record",
			"rewrap "+id+" main 1 changed record ok")
	})
}

// TestNoDEKWithoutItsLine has the line of a new DEK fail: nothing is stored, and nothing
// sealed.
func TestNoDEKWithoutItsLine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := &trail{KEK: w.main}
		a.fail(dek.EventCreate)
		s := w.sealer(w.manager(func(c *dek.Config) { c.Auditor = a }))
		if _, err := s.Key(t.Context()); !errors.Is(err, errFull) {
			t.Errorf("Key: got %v, want the auditor's error", err)
		}
		if n := len(w.records()); n != 0 {
			t.Errorf("%d records were stored", n)
		}
		a.fail()
		w.pass(dek.DefaultRefusalTime)
		w.seal(s)
	})
}

// TestRotationIsWrittenDown has a rewrapped record stored only after its line.
func TestRotationIsWrittenDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		a := &trail{KEK: w.main}
		m := w.manager(func(c *dek.Config) { c.Auditor, c.KEKs = a, map[string]kek.KEK{main: a} })
		w.wrapBy(m, main)
		w.main.Rotate("2")
		a.fail(dek.EventRewrap)
		if done, err := m.Rotate(t.Context(), dek.RotateOptions{}); err == nil && len(done.Failed) == 0 {
			t.Error("a record was rewrapped without its line")
		}
		w.wantWrappers(key, "main:1")
		a.fail()
		id := key.ID().String()
		a.want(t, "its line fails", "unwrap "+id+" for rotation", "wrap "+id+" for rotation", "unwrap "+id+" for proof", "rewrap "+id+" main 2 rotation ok")
		w.pass(10 * dek.DefaultKEKTimeout) // the claim ends
		if _, err := m.Rotate(t.Context(), dek.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wantWrappers(key, "main:2")
		a.want(t, "with it", "unwrap "+id+" for rotation", "wrap "+id+" for rotation", "unwrap "+id+" for proof",
			"rewrap "+id+" main 2 rotation ok", "remove "+id+" main 1 rotation ok")
	})
}
