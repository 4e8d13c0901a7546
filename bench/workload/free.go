package workload

import "sync"

// free holds what no call is busy with, so that two calls never change the same object. It grows to the number of calls that were ever at work at once.
type free[T any] struct {
	mu   sync.Mutex
	idle []T
}

// take gives one out, a new one when all are in use.
func (f *free[T]) take(make func() T) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.idle) == 0 {
		return make()
	}
	last := len(f.idle) - 1
	one := f.idle[last]
	f.idle = f.idle[:last]
	return one
}

// put gives one back.
func (f *free[T]) put(one T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, one)
}

// clear forgets all that are idle.
func (f *free[T]) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = nil
}
