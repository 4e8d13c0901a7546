package relay

import (
	"container/list"
	"sync"
)

// freeMessage is the size in bytes up to which a message needs no
// reservation: it is bounded by its stream's window, and all of a leg's
// together by maxLoose.
const freeMessage = 64 << 10

// Budget bounds the memory of large messages that are being assembled, over
// all pairs, and apart from that the memory of those that wait for their
// codec. Messages that do not fit wait in order of arrival; one that is larger
// than the whole is admitted alone. Safe for concurrent use.
type Budget struct {
	mu      sync.Mutex
	size    int64
	used    int64
	parked  int64     // held by messages that wait for their codec; bounded by size too
	waiting list.List // of *reservation
}

// NewBudget returns a budget of size bytes.
func NewBudget(size int64) *Budget { return &Budget{size: size} }

// reservation is a message's place in the budget, or in the queue for it.
// Budget.mu guards it.
type reservation struct {
	n       int64
	granted func() // called on a goroutine of its own
	held    bool
	line    *list.Element // in Budget.waiting
}

// reserve asks for n bytes. When they are not there now, granted is called
// later, on a goroutine of its own, unless the reservation is released first.
func (b *Budget) reserve(n int64, granted func()) (r *reservation, now bool) {
	r = &reservation{n: n, granted: granted}
	if b == nil {
		r.held = true
		return r, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting.Len() == 0 && b.fits(n) {
		b.used += n
		r.held = true
		return r, true
	}
	r.line = b.waiting.PushBack(r)
	return r, false
}

func (b *Budget) fits(n int64) bool { return b.used+n <= b.size || b.used == 0 }

// contended reports whether somebody waits for a place.
func (b *Budget) contended() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting.Len() > 0
}

// release gives a reservation back, held or still waiting. It may be called
// more than once, and with nil.
func (b *Budget) release(r *reservation) {
	if b == nil || r == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.held {
		r.held = false
		b.used -= r.n
	}
	if r.line != nil {
		b.waiting.Remove(r.line)
		r.line = nil
	}
	for e := b.waiting.Front(); e != nil; e = b.waiting.Front() {
		head := e.Value.(*reservation)
		if !b.fits(head.n) {
			return
		}
		b.waiting.Remove(e)
		head.line = nil
		b.used += head.n
		head.held = true
		go head.granted()
	}
}

// park counts a message of n bytes that waits for its codec, and reports
// whether there is room for it.
func (b *Budget) park(n int64) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parked > 0 && b.parked+n > b.size {
		return false
	}
	b.parked += n
	return true
}

func (b *Budget) unpark(n int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parked -= n
}
