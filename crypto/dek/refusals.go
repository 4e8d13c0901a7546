package dek

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// maxRefusals bounds how many ids are remembered as unopenable.
const maxRefusals = 4096

// refusals remembers for a short time why DEKs could not be opened, so that a flood
// of reads of one bad value asks the store and the KEKs once. It has no lock of its
// own.
type refusals struct {
	lru *simplelru.LRU[envelope.ID, refusal]
}

type refusal struct {
	err   error
	until int64 // nanoseconds since 1970
}

func newRefusals() *refusals {
	lru, err := simplelru.NewLRU[envelope.ID, refusal](maxRefusals, nil)
	if err != nil {
		panic(err) // maxRefusals is not positive
	}
	return &refusals{lru: lru}
}

// get returns why a DEK could not be opened, nil if that is not known at a time.
func (r *refusals) get(id envelope.ID, now int64) error {
	f, ok := r.lru.Get(id)
	if !ok || now >= f.until {
		return nil
	}
	return f.err
}

// put remembers an error for a time.
func (r *refusals) put(id envelope.ID, err error, now int64, keep time.Duration) {
	r.lru.Add(id, refusal{err: err, until: now + int64(keep)})
}

// forget says that there is news of a DEK.
func (r *refusals) forget(id envelope.ID) { r.lru.Remove(id) }
