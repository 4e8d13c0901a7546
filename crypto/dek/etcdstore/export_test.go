package etcdstore

import (
	"context"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// ErrAgain is what Follow returns when everything has to be read again.
var ErrAgain = errAgain

// Follow is the part of Watch after everything was read, at a revision.
func (s *Store) Follow(ctx context.Context, revision int64, resync <-chan struct{}, f func(dek.Change)) error {
	return s.follow(ctx, revision, resync, f)
}

// Answered has the store take in the header of an answer, to a call that was made just
// now.
func (s *Store) Answered(cluster uint64, revision int64) {
	s.note(s.position(), &etcdserverpb.ResponseHeader{ClusterId: cluster, Revision: revision})
}
