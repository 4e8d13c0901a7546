package dek

import (
	"slices"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// testKey returns a key with an id for each n.
func testKey(t testing.TB, n byte) *envelope.Key {
	t.Helper()
	key, err := envelope.NewKey(envelope.ID{n}, make([]byte, envelope.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// has returns which of n keys a cache has, without asking for them.
func (c *cache) has(n byte) []byte {
	var got []byte
	for i := range n {
		if _, ok := (*c.seen.Load())[envelope.ID{i}]; ok {
			got = append(got, i)
		}
	}
	return got
}

func TestCacheDropsLeastUsed(t *testing.T) {
	c := newCache(3)
	for n := range byte(3) {
		c.add(testKey(t, n))
	}
	c.get(envelope.ID{0})
	c.add(testKey(t, 3))
	if got, want := c.has(4), []byte{0, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("after one more: got %v, want %v", got, want)
	}
	c.add(testKey(t, 4))
	c.add(testKey(t, 5)) // 0 was used once, and not since
	if got, want := c.has(6), []byte{3, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("after two more: got %v, want %v", got, want)
	}
}

func TestCacheGrows(t *testing.T) {
	c := newCache(1)
	c.reserve(5)
	c.reserve(2) // never shrinks
	for n := range byte(6) {
		c.add(testKey(t, n))
	}
	if got, want := c.has(6), []byte{1, 2, 3, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	c.purge()
	if got := c.has(6); len(got) != 0 {
		t.Errorf("after purge: got %v", got)
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	r := newRefusals()
	for n := range 2 * maxRefusals {
		r.put(envelope.ID{byte(n), byte(n >> 8)}, ErrUnknownDEK, 0, 1)
	}
	if got := r.lru.Len(); got != maxRefusals {
		t.Errorf("got %d refusals, want %d", got, maxRefusals)
	}
}
