package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// errAgain says that the watch has to begin again with everything.
var errAgain = errors.New("the watch is not at what etcd has")

// Watch implements dek.Store.
//
// It does not use clientv3's watcher, which opens its stream again by itself at the
// next revision that it expects. An etcd that was restored from a snapshot meanwhile has
// not come to that revision, and says nothing until it has: a watcher would not hear of
// anything, and hear late of what it missed. Here the end of a stream is the end of
// Watch. Three more signs make it read everything again: a revision lower than one seen
// before, or another cluster id, in the answer to any call; a receive from resync, which
// finds what the others do not; and a compaction past the watch.
func (s *Store) Watch(ctx context.Context, resync <-chan struct{}, f func(dek.Change)) error {
	for {
		select {
		case <-s.fell: // what follows is new
		default:
		}
		whole, revision, err := s.listInTime(ctx)
		if err != nil {
			return err
		}
		f(whole)
		err = s.follow(ctx, revision, resync, f)
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

func (s *Store) listInTime(ctx context.Context) (dek.Change, int64, error) {
	bounded, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	whole, revision, err := s.list(bounded)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return whole, revision, err
}

// follow passes on what changes after a revision, at which everything was passed on.
func (s *Store) follow(ctx context.Context, revision int64, resync <-chan struct{}, f func(dek.Change)) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := s.open(ctx, revision+1)
	if err != nil {
		defer cancel() // after failed has looked at ctx
		return failed(ctx, "watching keyring", err)
	}
	answers, ended := receive(ctx, stream)
	defer func() { cancel(); <-ended }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.fell:
			return errAgain
		case <-resync:
			whole, now, err := s.listInTime(ctx)
			if err != nil {
				return err
			}
			if now < revision {
				return errAgain
			}
			f(whole)
			revision = now
		case a := <-answers:
			if a.err != nil {
				return failed(ctx, "watching keyring", a.err)
			}
			if err := canceled(a.WatchResponse); err != nil {
				return err
			}
			revision = s.pass(a.Events, revision, f)
		}
	}
}

// open opens a watch of the prefix. etcd ends it when the member has lost its leader.
func (s *Store) open(ctx context.Context, revision int64) (etcdserverpb.Watch_WatchClient, error) {
	stream, err := etcdserverpb.NewWatchClient(s.client.ActiveConnection()).
		Watch(clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	return stream, stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
		CreateRequest: &etcdserverpb.WatchCreateRequest{
			Key: []byte(s.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(s.prefix)), StartRevision: revision,
		},
	}})
}

// answer is what a stream gave.
type answer struct {
	*etcdserverpb.WatchResponse
	err error
}

// receive reads a stream until it or ctx ends; then it closes ended.
func receive(ctx context.Context, stream etcdserverpb.Watch_WatchClient) (answers <-chan answer, ended <-chan struct{}) {
	a, e := make(chan answer), make(chan struct{})
	go func() {
		defer close(e)
		for {
			r, err := stream.Recv()
			select {
			case a <- answer{r, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return a, e
}

// canceled returns why etcd ended a watch, nil if it did not.
func canceled(r *etcdserverpb.WatchResponse) error {
	switch {
	case r.CompactRevision > 0:
		return errAgain
	case r.Canceled:
		return fmt.Errorf("watching keyring: etcd ended the watch: %s", r.CancelReason)
	}
	return nil
}

// pass passes events on, those of one revision as one change, and returns the revision
// of the last. Those up to revision were in the last reading of everything.
func (s *Store) pass(events []*mvccpb.Event, revision int64, f func(dek.Change)) int64 {
	for len(events) > 0 {
		at, n := events[0].Kv.ModRevision, 1
		for n < len(events) && events[n].Kv.ModRevision == at {
			n++
		}
		if at > revision {
			revision = at
			if c := s.change(events[:n]); len(c.Records)+len(c.Gone)+len(c.Tombstones) > 0 {
				f(c)
			}
		}
		events = events[n:]
	}
	return revision
}

// change is what the events of one revision say. Keys that are not the keyring's are
// passed over, and so is a tombstone that is gone: what it said was said.
func (s *Store) change(events []*mvccpb.Event) (c dek.Change) {
	for _, e := range events {
		id, tombstone, ok := s.parseKey(e.Kv.Key)
		switch put := e.Type == mvccpb.Event_PUT; {
		case !ok || tombstone && !put:
		case tombstone:
			c.Tombstones = append(c.Tombstones, id)
		case put:
			c.Records = append(c.Records, dek.Stored{ID: id, Data: e.Kv.Value, Revision: e.Kv.ModRevision})
		default:
			c.Gone = append(c.Gone, id)
		}
	}
	return c
}
