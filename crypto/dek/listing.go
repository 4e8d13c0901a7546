package dek

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Listing is what a keyring's store holds, for tools that need no KEK.
type Listing struct {
	Keyring    string        // its name, by which the records were judged
	ClusterID  uint64        // of the etcd; 0 for a store that is not etcd
	Revision   int64         // of the store, if it counts them
	Records    []Listed      // ordered by id
	Tombstones []envelope.ID // ordered
}

// Listed is a record as it is stored.
type Listed struct {
	Stored
	Record *Record // nil if Err is not
	Err    error   // why it is no record of this keyring
}

// List reads everything that a store has, and takes the records apart as far as that can
// be done without a KEK.
func List(ctx context.Context, store Store, keyring string) (*Listing, error) {
	all, err := store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing keyring: %w", timedOut(err))
	}
	out := &Listing{Keyring: keyring, ClusterID: store.ClusterID(), Revision: all.Revision, Tombstones: slices.Clone(all.Tombstones)}
	for _, stored := range all.Records {
		record, err := checkRecord(stored, keyring)
		if err != nil {
			record = nil
		}
		out.Records = append(out.Records, Listed{Stored: stored, Record: record, Err: err})
	}
	slices.SortFunc(out.Records, func(a, b Listed) int { return compareIDs(a.ID, b.ID) })
	slices.SortFunc(out.Tombstones, compareIDs)
	return out, nil
}

func compareIDs(a, b envelope.ID) int { return bytes.Compare(a[:], b[:]) }
