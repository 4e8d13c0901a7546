// Package dektest tests implementations of dek.Store, and has a Memory for the tests of
// those who use one.
package dektest

import (
	"context"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// RunStore tests what dek.Store promises, as subtests of t. open returns two handles of
// one new and empty keyring, as two processes have them; they may be the same. RunStore
// closes them.
func RunStore(t *testing.T, open func(t *testing.T) (a, b dek.Store)) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			a, b := open(t)
			t.Cleanup(func() {
				for _, s := range []dek.Store{a, b} {
					if err := s.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				}
			})
			if err := c.run(&subject{ctx: t.Context(), a: a, b: b}); err != nil {
				t.Error(err)
			}
		})
	}
}

// subject is what a check works on.
type subject struct {
	ctx  context.Context
	a, b dek.Store
}

// check tests one promise and returns an error where it is broken. Checks do not use
// testing.T, so that the suite itself can be tested with stores that are wrong.
type check struct {
	name string
	run  func(s *subject) error
}

var checks = []check{
	{"nothing there", checkNothing},
	{"create and get", checkCreate},
	{"create is create only", checkCreateOnly},
	{"of many creates one wins", checkCreateRace},
	{"update compares the revision", checkUpdate},
	{"update does not create", checkUpdateAbsent},
	{"of many updates one wins", checkUpdateRace},
	{"arguments are left alone", checkArguments},
	{"list", checkList},
	{"record keys", checkRecordKeys},
	{"ended context", checkEndedContext},
	{"watch begins with everything", checkWatchWhole},
	{"watch sees another's writes", checkWatchChanges},
	{"watch ends with its context", checkWatchEnds},
	{"bury", checkBury},
	{"bury compares the revision", checkBuryConflict},
	{"watch sees a burial", checkWatchBurial},
	{"exhume undoes a burial", checkExhume},
	{"watch sees what was exhumed", checkWatchExhumed},
}

// ID returns an id that stands for nothing, another for each n.
func ID(n byte) envelope.ID {
	id := envelope.ID{0: 0xdd, envelope.IDSize - 1: n}
	return id
}

// Record returns the encoding of a record with an id of the keyring "dektest", another
// for each n. Nothing can open it.
func Record(id envelope.ID, n byte) []byte {
	r := dek.Record{
		ID: id, Keyring: "dektest",
		Created:   time.Date(2026, 1, 1, 0, 0, int(n)%60, 0, time.UTC),
		SealUntil: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC),
		Wrappings: []dek.Wrapping{{KEK: "dektest <&> \"ü\"", Version: "1", Algorithm: "none", Ciphertext: []byte{n, 1, 2, 3}}},
	}
	data, err := r.Marshal()
	if err != nil {
		panic(err)
	}
	return data
}
