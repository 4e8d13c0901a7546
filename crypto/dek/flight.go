package dek

import (
	"context"
	"sync"
)

// tasks owns the goroutines that work for callers. They outlive the caller that
// started them, whose cancel must not fail the others, and end with the Manager.
type tasks struct {
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards closed, and wg.Go against wg.Wait
	closed bool
}

func newTasks() *tasks {
	ctx, cancel := context.WithCancel(context.Background())
	return &tasks{ctx: ctx, cancel: cancel}
}

// start runs f in a goroutine of its own, unless close was called.
func (t *tasks) start(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(func() { f(t.ctx) })
	return true
}

// close ends the goroutines and waits for them.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.wg.Wait()
}

// flights does one thing at a time for each key, for all who want it done. A mutex
// guards the map; a flight's result is written before done is closed.
type flights[K comparable, V any] struct {
	tasks *tasks

	mu      sync.Mutex
	current map[K]*flight[V]
}

type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

func newFlights[K comparable, V any](t *tasks) *flights[K, V] {
	return &flights[K, V]{tasks: t, current: make(map[K]*flight[V])}
}

// start joins the flight of a key, or begins one with f. The flight's error is
// ErrClosed after the Manager was closed.
func (s *flights[K, V]) start(key K, f func(ctx context.Context) (V, error)) *flight[V] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if running, ok := s.current[key]; ok {
		return running
	}
	fl := &flight[V]{done: make(chan struct{}), err: ErrClosed}
	s.current[key] = fl
	started := s.tasks.start(func(ctx context.Context) {
		fl.value, fl.err = f(ctx)
		s.land(key, fl)
	})
	if !started {
		delete(s.current, key)
		close(fl.done)
	}
	return fl
}

// land ends a flight. Whoever comes from now on begins another.
func (s *flights[K, V]) land(key K, fl *flight[V]) {
	s.mu.Lock()
	delete(s.current, key)
	s.mu.Unlock()
	close(fl.done)
}

// wait returns the flight's result, or ctx's error if ctx ends first.
// The flight goes on without the caller.
func (fl *flight[V]) wait(ctx context.Context) (V, error) {
	select {
	case <-fl.done:
		return fl.value, fl.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}
