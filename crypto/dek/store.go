package dek

import (
	"context"
	"errors"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Errors of a Store. Every other error says that the store was reached and refuses:
// for want of a permission, say.
var (
	// ErrNotFound says that there is neither a record nor a tombstone.
	ErrNotFound = errors.New("no record of it is in the keyring")
	// ErrExists says that there is a record already.
	ErrExists = errors.New("a record of it is in the keyring already")
	// ErrConflict says that the record is not at the revision given any more.
	ErrConflict = errors.New("the record was changed meanwhile")
	// ErrTombstoned says that the record was removed for good and is not put
	// back.
	ErrTombstoned = errors.New("its record was removed from the keyring for good")
	// ErrStoreUnavailable says that the store did not answer, so that nobody
	// knows whether a write was done. Asking again can help.
	ErrStoreUnavailable = errors.New("the keyring's store does not answer")
)

// Store keeps records and tombstones. It knows them as bytes by their DEK's id and
// writes only by compare-and-swap: nothing is ever overwritten unseen. All methods
// are safe for concurrent use; all reads are linearizable. Byte slices that are
// passed in or out are not changed by anybody afterwards.
//
// dektest.RunStore tests what is promised here.
type Store interface {
	// Get reads one record. ErrNotFound and ErrTombstoned say what there is
	// instead.
	Get(ctx context.Context, id envelope.ID) (Stored, error)

	// List reads everything, as a Change with Whole set.
	List(ctx context.Context) (Change, error)

	// Create stores a record where there is none and returns its revision.
	// It fails with ErrExists where there is one, and with ErrTombstoned
	// where there was one.
	Create(ctx context.Context, id envelope.ID, data []byte) (revision int64, err error)

	// Update replaces the record that has a revision and returns the new
	// revision. It fails with ErrConflict if there is no such record, and
	// with ErrTombstoned if there is a tombstone.
	Update(ctx context.Context, id envelope.ID, data []byte, revision int64) (int64, error)

	// Ping asks for nothing but an answer, as linearizable as a read: after it
	// ClusterID is of the etcd that gives answers now.
	Ping(ctx context.Context) error

	// Watch calls f with everything, and then with what changes, from one
	// goroutine and in the order of the changes. It does not pass over a
	// change, not even when the store was put back to an older state: then it
	// calls f with everything again. It does so, too, after a receive from
	// resync; a store that is told of changes by nobody reads only then.
	//
	// Watch returns ctx's error when ctx ends, and another when it cannot go
	// on; the caller calls it again and gets everything again.
	Watch(ctx context.Context, resync <-chan struct{}, f func(Change)) error

	// RecordKey returns the key of etcd under which a record is, nil if the
	// store is not etcd.
	RecordKey(id envelope.ID) []byte

	// ClusterID returns the id of the etcd cluster that gave the last answer,
	// 0 before the first and for a store that is not etcd.
	ClusterID() uint64

	// Close ends all calls and gives back what the store holds.
	Close() error
}

// Burier is a Store whose records can be removed for good. A file is none.
type Burier interface {
	Store
	// Bury puts a tombstone in the place of the record that has a revision.
	// It fails with ErrConflict if there is no such record.
	Bury(ctx context.Context, id envelope.ID, tombstone []byte, revision int64) error

	// Exhume undoes Bury: it puts a record in the place of the tombstone and returns
	// its revision. It fails with ErrNotFound if there is no tombstone, and with
	// ErrExists if there is a record.
	Exhume(ctx context.Context, id envelope.ID, data []byte) (revision int64, err error)
}

// Reconnecter is a Store that can connect anew. Its address may lead elsewhere by now than
// its connections do: to an etcd that was restored beside one which is still alive.
type Reconnecter interface {
	Store
	// Reconnect gives up the connections. Calls that are under way may fail as
	// ErrStoreUnavailable. It does nothing if it was called a moment ago.
	Reconnect()
}

// Stored is a record as a Store has it.
type Stored struct {
	ID       envelope.ID
	Data     []byte // what Create or Update got; anything, if somebody else wrote it
	Revision int64  // identifies this state of the record, for Update and Bury
}

// Change is a part of what a Store holds, or all of it.
type Change struct {
	// Whole says that this is everything: what is not in it does not exist.
	Whole bool
	// Revision is the store's at the time when it was read, if Whole is set and the
	// Store counts them; else 0.
	Revision int64
	// Records are there, in no order.
	Records []Stored
	// Gone are the records that were removed. Empty if Whole is set.
	Gone []envelope.ID
	// Tombstones are there. One that takes the place of a record is in the
	// same Change as the record's end.
	Tombstones []envelope.ID
}
