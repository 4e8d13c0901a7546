package kektest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/etcdseal/etcdseal/kek"
)

var allOps = [...]string{kek.OpWrap, kek.OpUnwrap, kek.OpVersion}

// Rotate makes another version the current one. The older ones still unwrap.
func (f *Fake) Rotate(version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version = version
	if !slices.Contains(f.made, version) {
		f.made = append(f.made, version)
	}
}

// Fail makes every call of the operations named (kek.OpWrap and so on; none named
// is all of them) fail with a class, until it is called for them again. The zero
// class ends the failing. Calls that are blocked meet what holds on their release.
func (f *Fake) Fail(class kek.Class, ops ...string) { f.FailTimes(-1, class, ops...) }

// FailTimes is Fail for the next n calls of each operation only.
func (f *Fake) FailTimes(n int, class kek.Class, ops ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, state := range f.states(ops) {
		state.class, state.times = class, n
	}
}

// FailVersion makes Unwrap by one version fail with a class: NotFound for one that
// was deleted, Disabled for one that was switched off. The zero class brings the
// version back.
func (f *Fake) FailVersion(version string, class kek.Class) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone[version] = class
}

// Swap makes Unwrap return what swap makes of the right DEK, as somebody does who
// replaces a wrapping by one of a DEK of their own. Nil ends it.
func (f *Fake) Swap(swap func(dek []byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.swap = swap
}

// Block makes calls of the operations named (none named is all of them) wait, from
// now until release is called or their context ends. release may be called more
// than once. An operation that is blocked already cannot be blocked again.
func (f *Fake) Block(ops ...string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	states, gate := f.states(ops), make(chan struct{})
	for _, state := range states {
		if state.gate != nil {
			panic("kektest: the operation is blocked already")
		}
	}
	for _, state := range states {
		state.gate = gate
	}
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, state := range states {
			state.gate = nil
		}
		close(gate)
	})
}

// Calls returns how many calls of an operation there were, with those that wait or
// failed.
func (f *Fake) Calls(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.states([]string{op})[0].calls
}

// AwaitCalls waits until there were at least n calls of an operation. The error is
// the context's.
func (f *Fake) AwaitCalls(ctx context.Context, op string, n int) error {
	return f.await(ctx, op, func(s *opState) bool { return s.calls >= n })
}

// AwaitBlocked waits until at least n calls of an operation wait for a release. The
// error is the context's.
func (f *Fake) AwaitBlocked(ctx context.Context, op string, n int) error {
	return f.await(ctx, op, func(s *opState) bool { return s.waiting >= n })
}

func (f *Fake) await(ctx context.Context, op string, done func(*opState) bool) error {
	for {
		f.mu.Lock()
		ok, changed := done(f.states([]string{op})[0]), f.changed
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// states returns the state of each operation named, or of all. The caller holds mu.
func (f *Fake) states(ops []string) []*opState {
	if len(ops) == 0 {
		ops = allOps[:]
	}
	states := make([]*opState, 0, len(ops))
	for _, op := range slices.Compact(slices.Sorted(slices.Values(ops))) {
		state, ok := f.ops[op]
		if !ok {
			panic(fmt.Sprintf("kektest: there is no operation %q", op))
		}
		states = append(states, state)
	}
	return states
}
