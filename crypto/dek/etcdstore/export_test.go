package etcdstore

import "go.etcd.io/etcd/api/v3/etcdserverpb"

// Answered has the store take in the header of an answer, to a call that was made just
// now.
func (s *Store) Answered(cluster uint64, revision int64) {
	s.note(s.position(), &etcdserverpb.ResponseHeader{ClusterId: cluster, Revision: revision})
}
