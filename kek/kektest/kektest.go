// Package kektest tests implementations of kek.KEK, and has a Fake for the tests
// of those who use one.
package kektest

import (
	"context"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
)

// Run tests what kek.KEK promises, as subtests of t. open returns a new handle of
// a KEK that works; all handles opened with one t, or with its subtests' t's, are
// of the same key, which is not rotated meanwhile. Run closes them.
//
// A KEK that is a kek.Dated is tested as one.
//
// Classes are tested only as far as every provider can tell them; the provider's
// own tests say more.
func Run(t *testing.T, open func(t *testing.T) kek.KEK) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			s := &subject{ctx: t.Context(), open: func() kek.KEK {
				k := open(t)
				t.Cleanup(func() {
					if err := k.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
				return k
			}}
			if err := c.run(s); err != nil {
				t.Error(err)
			}
		})
	}
}

// subject is what a check works on.
type subject struct {
	ctx  context.Context
	open func() kek.KEK
}

// check tests one promise and returns an error where it is broken. Checks do not
// use testing.T, so that the suite itself can be tested with KEKs that are wrong.
type check struct {
	name string
	run  func(s *subject) error
}

var checks = []check{
	{"round trip", checkRoundTrip},
	{"arguments are left alone", checkArguments},
	{"results are the caller's", checkResults},
	{"another handle unwraps", checkAnotherHandle},
	{"sizes", checkSizes},
	{"changed ciphertext", checkChangedCiphertext},
	{"another version", checkAnotherVersion},
	{"another algorithm", checkAnotherAlgorithm},
	{"cancelled context", checkCancelled},
	{"concurrent calls", checkConcurrent},
	{"close", checkClose},
	{"dates", checkDates},
}
