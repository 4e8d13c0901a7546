package difftest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// counts is what a recorder has seen so far.
type counts struct {
	created     int           // answers to create requests
	lastCreated int64         // the id in the last one; -1 when it was refused
	canceled    map[int64]int // cancellations by id, since the id was last created
	progress    int64         // the revision of the last answer to a progress request
	fault       error         // the stream's end, or the first message that no etcd may send
}

// recorder takes down everything that one watch stream delivers.
type recorder struct {
	endpoint *endpoint
	stream   pb.Watch_WatchClient
	done     chan struct{} // closed when the stream has ended

	mu      sync.Mutex // guards everything below
	seen    counts
	changed chan struct{} // closed and replaced at every change
	log     map[int64][]proto.Message
	last    map[int64]int64 // revision of the last event by watch
	bare    map[int64]int   // how many events the watch's first response with events had, if none of them had prev_kv; -1 before it
	partial map[int64]bool  // whether the watch's last response was a fragment with more to follow
}

func newRecorder(p *endpoint, stream pb.Watch_WatchClient) *recorder {
	return &recorder{
		endpoint: p, stream: stream, done: make(chan struct{}), changed: make(chan struct{}), seen: counts{canceled: make(map[int64]int)},
		log: make(map[int64][]proto.Message), last: make(map[int64]int64), partial: make(map[int64]bool),
		bare: make(map[int64]int),
	}
}

// record starts the goroutine that receives; it ends with the stream.
func record(p *endpoint, stream pb.Watch_WatchClient) *recorder {
	r := newRecorder(p, stream)
	go func() {
		defer close(r.done)
		for {
			response, err := stream.Recv()
			if stream.Context().Err() == context.Canceled && status.Code(err) == codes.Canceled {
				return // this side closed it
			}
			r.received(response, err)
			if err != nil {
				return
			}
		}
	}()
	return r
}

// count is a copy of what was seen so far.
func (r *recorder) count() counts {
	n, _ := r.look()
	return n
}

// look also gives a channel that is closed at the next change.
func (r *recorder) look() (counts, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.seen
	n.canceled = maps.Clone(n.canceled)
	return n, r.changed
}

// logged are the watches that have messages which were not taken.
func (r *recorder) logged() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.log))
}

// take gives the messages of one watch since the last time: created and cancelled responses, and events one by one.
func (r *recorder) take(id int64) []proto.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log[id]
	delete(r.log, id)
	return log
}

// bareStart is how many events without any prev_kv a watch began with, if they are still to be compared; it says so once.
func (r *recorder) bareStart(id int64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := max(0, r.bare[id])
	r.bare[id] = 0
	return n
}

func (r *recorder) received(m *pb.WatchResponse, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		revision := m.GetHeader().GetRevision()
		if err = r.endpoint.strip(m.Header); err == nil {
			err = r.file(m, revision)
		}
	} else {
		err = fmt.Errorf("the stream ended: %w", err)
	}
	if err != nil && r.seen.fault == nil {
		r.seen.fault = err
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// file files one message. It is called with mu held.
func (r *recorder) file(m *pb.WatchResponse, revision int64) error {
	id := m.WatchId
	switch {
	case m.Created || m.Canceled:
		if m.Created {
			r.seen.created++
			r.seen.lastCreated = id
			r.seen.canceled[id] = 0
			r.last[id], r.partial[id], r.bare[id] = 0, false, -1
		}
		if m.Canceled {
			r.seen.canceled[id]++
		}
		r.log[id] = append(r.log[id], m)
		return nil
	case len(m.Events) == 0 && id == -1:
		r.seen.progress = revision
		return nil
	case len(m.Events) == 0: // a watch's own progress notification, whose time nobody knows
		return nil
	}
	if r.last[id] >= m.Events[0].GetKv().GetModRevision() && !r.partial[id] {
		return fmt.Errorf("watch %d: revision %d came again after %d in another response", id, m.Events[0].GetKv().GetModRevision(), r.last[id])
	}
	if r.bare[id] < 0 {
		r.bare[id] = len(m.Events)
		if slices.ContainsFunc(m.Events, func(e *mvccpb.Event) bool { return e.PrevKv != nil }) {
			r.bare[id] = 0
		}
	}
	for _, event := range m.Events {
		r.log[id] = append(r.log[id], event)
		r.last[id] = event.GetKv().GetModRevision()
	}
	r.partial[id] = m.Fragment
	if revision < r.last[id] {
		return fmt.Errorf("watch %d: the header's revision is %d, the last event's %d", id, revision, r.last[id])
	}
	return nil
}
