package dek

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// cache holds opened DEKs. Readers see an immutable map and take no lock; the LRU
// behind it decides what is dropped when it is full. It is never smaller than what
// was reserved, so that a DEK with a record is dropped only for another such.
type cache struct {
	seen atomic.Pointer[map[envelope.ID]*cached] // what the LRU holds; never changed once it is here

	mu   sync.Mutex // guards all below
	lru  *simplelru.LRU[envelope.ID, *cached]
	size int // the LRU's
}

// cached is one opened DEK.
type cached struct {
	key *envelope.Key
	// used says that the DEK was asked for since the LRU was last told of it.
	// It is written once and then only read, so that readers on many
	// processors share its cache line.
	used atomic.Bool
}

// newCache returns an empty cache of a size, which is positive.
func newCache(size int) *cache {
	lru, err := simplelru.NewLRU[envelope.ID, *cached](size, nil)
	if err != nil {
		panic(err) // size is not positive
	}
	c := &cache{lru: lru, size: size}
	c.seen.Store(&map[envelope.ID]*cached{})
	return c
}

// get returns an opened DEK without waiting or allocating.
func (c *cache) get(id envelope.ID) (*envelope.Key, bool) {
	e, ok := (*c.seen.Load())[id]
	if !ok {
		return nil, false
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.key, true
}

// add puts an opened DEK in, and drops the one that was not asked for the longest
// if the cache is full.
func (c *cache) add(key *envelope.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range *c.seen.Load() {
		if e.used.Swap(false) {
			c.lru.Get(id)
		}
	}
	c.lru.Add(key.ID(), &cached{key: key})
	c.publish()
}

// reserve makes the cache no smaller than n.
func (c *cache) reserve(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.size {
		c.size = n
		c.lru.Resize(n)
	}
}

// remove drops one DEK.
func (c *cache) remove(id envelope.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lru.Remove(id) {
		c.publish()
	}
}

// purge drops everything.
func (c *cache) purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Purge()
	c.publish()
}

// publish shows readers what the LRU holds. The caller holds mu.
func (c *cache) publish() {
	seen := make(map[envelope.ID]*cached, c.lru.Len())
	for _, id := range c.lru.Keys() {
		if e, ok := c.lru.Peek(id); ok {
			seen[id] = e
		}
	}
	c.seen.Store(&seen)
}
