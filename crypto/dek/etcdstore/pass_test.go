package etcdstore

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

func TestPass(t *testing.T) {
	s := &Store{prefix: "/p/"}
	id := func(n byte) envelope.ID { return envelope.ID{n} }
	put := func(key string, revision int64) *mvccpb.Event {
		return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte("v"), ModRevision: revision}}
	}
	remove := func(key string, revision int64) *mvccpb.Event {
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
	}
	events := []*mvccpb.Event{
		put(s.recordKey(id(1)), 3), // was in the last reading of everything
		put(s.recordKey(id(2)), 4),
		put("/p/other", 5),
		remove(s.tombstoneKey(id(9)), 6),
		remove(s.recordKey(id(2)), 7), // a burial
		put(s.tombstoneKey(id(2)), 7),
		put(s.recordKey(id(3)), 8),
		remove(s.recordKey(id(3)), 9),
	}
	want := []dek.Change{
		{Records: []dek.Stored{{ID: id(2), Data: []byte("v"), Revision: 4}}},
		{Gone: []envelope.ID{id(2)}, Tombstones: []envelope.ID{id(2)}},
		{Records: []dek.Stored{{ID: id(3), Data: []byte("v"), Revision: 8}}},
		{Gone: []envelope.ID{id(3)}},
	}
	var got []dek.Change
	revision := s.pass(events, 3, func(c dek.Change) { got = append(got, c) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if revision != 9 {
		t.Errorf("got revision %d, want 9", revision)
	}
}
