package difftest

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// TestHistoryOfANewWatch shows what is forgiven for etcd's sake, that the first response of a new watch lacks prev_kv, and what is not.
func TestHistoryOfANewWatch(t *testing.T) {
	events := func(withPrev bool, revisions ...int64) *pb.WatchResponse {
		m := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 9}, WatchId: 1}
		for _, rev := range revisions {
			e := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: rev, Version: rev}}
			if withPrev {
				e.PrevKv = &mvccpb.KeyValue{Key: []byte("k"), ModRevision: rev - 1, Version: rev - 1}
			}
			m.Events = append(m.Events, e)
		}
		return m
	}
	for _, c := range []struct {
		name               string
		asked              *pb.WatchCreateRequest
		reference, subject []*pb.WatchResponse
		early              int
		wantMismatch       bool
	}{
		{
			name: "first response lacks it", asked: &pb.WatchCreateRequest{PrevKv: true, StartRevision: 2},
			reference: []*pb.WatchResponse{events(false, 2, 3), events(true, 4)}, subject: []*pb.WatchResponse{events(true, 2, 3, 4)},
		},
		{
			name: "first response of the subject lacks it", asked: &pb.WatchCreateRequest{PrevKv: true, StartRevision: 2},
			reference: []*pb.WatchResponse{events(true, 2, 3)}, subject: []*pb.WatchResponse{events(false, 2), events(true, 3)},
		},
		{
			name: "second response lacks it", asked: &pb.WatchCreateRequest{PrevKv: true, StartRevision: 2}, wantMismatch: true,
			reference: []*pb.WatchResponse{events(true, 2, 3)}, subject: []*pb.WatchResponse{events(true, 2), events(false, 3)},
		},
		{
			name: "no history asked for", asked: &pb.WatchCreateRequest{PrevKv: true}, wantMismatch: true,
			reference: []*pb.WatchResponse{events(true, 2)}, subject: []*pb.WatchResponse{events(false, 2)},
		},
		{
			name: "given unasked", asked: &pb.WatchCreateRequest{StartRevision: 2}, wantMismatch: true,
			reference: []*pb.WatchResponse{events(false, 2)}, subject: []*pb.WatchResponse{events(true, 2)},
		},
		{
			name: "too often", asked: &pb.WatchCreateRequest{PrevKv: true, StartRevision: 2}, early: maxEarly, wantMismatch: true,
			reference: []*pb.WatchResponse{events(true, 2)}, subject: []*pb.WatchResponse{events(false, 2)},
		},
	} {
		e := &engine{early: c.early}
		p := &pair{watches: map[int64]*pb.WatchCreateRequest{1: c.asked}}
		p.reference, p.subject = newRecorder(&endpoint{name: "reference"}, nil), newRecorder(&endpoint{name: "subject"}, nil)
		for i, messages := range [][]*pb.WatchResponse{c.reference, c.subject} {
			side := p.sides()[i]
			side.received(&pb.WatchResponse{Header: &pb.ResponseHeader{}, WatchId: 1, Created: true}, nil)
			for _, m := range messages {
				side.received(m, nil)
			}
		}
		err := e.match(p, c.name)
		var m *Mismatch
		if errors.As(err, &m) != c.wantMismatch || (err != nil) != c.wantMismatch {
			t.Errorf("%s: got %v, want a mismatch: %t", c.name, err, c.wantMismatch)
		}
	}
}
