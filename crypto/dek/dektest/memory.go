package dektest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Operations of a Memory, as Hook names them.
const (
	OpGet    = "get"
	OpList   = "list"
	OpCreate = "create"
	OpUpdate = "update"
	OpPing   = "ping"
	OpWatch  = "watch"
)

// errRestored ends watches when the store was put back to an older state.
var errRestored = errors.New("the store was put back to an older state")

// Memory is a Store in memory that a test can spoil, fail and rewind. It passes
// RunStore. All its methods are safe for concurrent use.
type Memory struct {
	mu       sync.Mutex // guards all below
	state    memoryState
	revision int64
	restored int // how often the state was replaced
	log      []dek.Change
	changed  chan struct{} // closed and replaced at every change
	hook     func(ctx context.Context, op string, do func()) error
	closed   bool
}

type memoryState struct {
	records    map[envelope.ID]dek.Stored
	tombstones map[envelope.ID]bool
}

var _ dek.Burier = (*Memory)(nil)

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		state:   memoryState{records: map[envelope.ID]dek.Stored{}, tombstones: map[envelope.ID]bool{}},
		changed: make(chan struct{}),
	}
}

// Get implements dek.Store.
func (s *Memory) Get(ctx context.Context, id envelope.ID) (stored dek.Stored, err error) {
	errHook := s.do(ctx, OpGet, func() {
		switch r, ok := s.state.records[id]; {
		case ok:
			stored = r
		case s.state.tombstones[id]:
			err = dek.ErrTombstoned
		default:
			err = dek.ErrNotFound
		}
	})
	return stored, errors.Join(errHook, err)
}

// List implements dek.Store.
func (s *Memory) List(ctx context.Context) (whole dek.Change, err error) {
	err = s.do(ctx, OpList, func() { whole = s.whole() })
	return whole, err
}

// Create implements dek.Store.
func (s *Memory) Create(ctx context.Context, id envelope.ID, data []byte) (revision int64, err error) {
	errHook := s.do(ctx, OpCreate, func() {
		switch _, ok := s.state.records[id]; {
		case s.state.tombstones[id]:
			err = dek.ErrTombstoned
		case ok:
			err = dek.ErrExists
		default:
			revision = s.put(id, data)
		}
	})
	return revision, errors.Join(errHook, err)
}

// Update implements dek.Store.
func (s *Memory) Update(ctx context.Context, id envelope.ID, data []byte, revision int64) (updated int64, err error) {
	errHook := s.do(ctx, OpUpdate, func() {
		switch r, ok := s.state.records[id]; {
		case s.state.tombstones[id]:
			err = dek.ErrTombstoned
		case !ok || r.Revision != revision:
			err = dek.ErrConflict
		default:
			updated = s.put(id, data)
		}
	})
	return updated, errors.Join(errHook, err)
}

// Ping implements dek.Store.
func (s *Memory) Ping(ctx context.Context) error { return s.do(ctx, OpPing, func() {}) }

// Bury implements dek.Burier.
func (s *Memory) Bury(_ context.Context, id envelope.ID, _ []byte, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.state.records[id]; !ok || r.Revision != revision {
		return dek.ErrConflict
	}
	delete(s.state.records, id)
	s.state.tombstones[id] = true
	s.note(dek.Change{Gone: []envelope.ID{id}, Tombstones: []envelope.ID{id}})
	return nil
}

// Exhume implements dek.Burier.
func (s *Memory) Exhume(_ context.Context, id envelope.ID, data []byte) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.state.records[id]; ok {
		return 0, dek.ErrExists
	}
	if !s.state.tombstones[id] {
		return 0, dek.ErrNotFound
	}
	delete(s.state.tombstones, id)
	return s.put(id, data), nil
}

// Watch implements dek.Store.
func (s *Memory) Watch(ctx context.Context, resync <-chan struct{}, f func(dek.Change)) error {
	var next int
	var restored int
	all := func() (whole dek.Change, err error) {
		err = s.do(ctx, OpWatch, func() { whole, next, restored = s.whole(), len(s.log), s.restored })
		return whole, err
	}
	whole, err := all()
	if err != nil {
		return err
	}
	f(whole)
	for {
		s.mu.Lock()
		changed, closed, rewound := s.changed, s.closed, s.restored != restored
		var news []dek.Change
		if !rewound {
			news, next = slices.Clone(s.log[next:]), len(s.log)
		}
		s.mu.Unlock()
		switch {
		case closed:
			return dek.ErrStoreUnavailable
		case rewound:
			return errRestored
		}
		for _, n := range news {
			f(n)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-resync:
			if whole, err = all(); err != nil {
				return err
			}
			f(whole)
		}
	}
}

// RecordKey implements dek.Store.
func (s *Memory) RecordKey(id envelope.ID) []byte { return []byte("/memory/" + id.String()) }

// ClusterID implements dek.Store.
func (s *Memory) ClusterID() uint64 { return 0 }

// Close implements dek.Store.
func (s *Memory) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.notify()
	return nil
}

// Hook has hook called in place of every operation from now on. do does the operation;
// hook may wait before it, return an error without it, or with it, as a store does
// whose answer was lost. Nil ends it.
func (s *Memory) Hook(hook func(ctx context.Context, op string, do func()) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Put writes a record without asking anything, as a person may.
func (s *Memory) Put(id envelope.ID, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(id, data)
}

// Remove removes a record and leaves no tombstone.
func (s *Memory) Remove(id envelope.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.state.records, id)
	s.note(dek.Change{Gone: []envelope.ID{id}})
}

// Snapshot returns the state of the store, for Restore.
func (s *Memory) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Snapshot{state: s.state.clone(), revision: s.revision}
}

// Snapshot is the state of a Memory at one time.
type Snapshot struct {
	state    memoryState
	revision int64
}

// Restore puts the store back to a state, its revision with it, and ends all watches.
func (s *Memory) Restore(snapshot *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.revision, s.log = snapshot.state.clone(), snapshot.revision, nil
	s.restored++
	s.notify()
}

// Records returns the records that are in the store.
func (s *Memory) Records() []dek.Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whole().Records
}

// do runs one operation under mu, through the hook if there is one.
func (s *Memory) do(ctx context.Context, op string, do func()) error {
	s.mu.Lock()
	hook, closed := s.hook, s.closed
	s.mu.Unlock()
	if closed {
		return dek.ErrStoreUnavailable
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	locked := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		do()
	}
	if hook != nil {
		return hook(ctx, op, locked)
	}
	locked()
	return nil
}

// whole is everything. The caller holds mu.
func (s *Memory) whole() dek.Change {
	return dek.Change{
		Whole:      true,
		Revision:   s.revision,
		Records:    slices.Collect(maps.Values(s.state.records)),
		Tombstones: slices.Collect(maps.Keys(s.state.tombstones)),
	}
}

// put writes a record. The caller holds mu.
func (s *Memory) put(id envelope.ID, data []byte) int64 {
	r := dek.Stored{ID: id, Data: slices.Clone(data), Revision: s.revision + 1}
	s.state.records[id] = r
	s.note(dek.Change{Records: []dek.Stored{r}})
	return r.Revision
}

// note logs a change for the watches. The caller holds mu.
func (s *Memory) note(c dek.Change) {
	s.revision++
	s.log = append(s.log, c)
	s.notify()
}

func (s *Memory) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (m memoryState) clone() memoryState {
	return memoryState{records: maps.Clone(m.records), tombstones: maps.Clone(m.tombstones)}
}
