package difftest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

const (
	// maxPairs is how many watch streams are open at once.
	maxPairs = 3
	// maxWatches is how many watches a stream has.
	maxWatches = 6
)

// pair is one watch stream on each endpoint, with the same requests.
type pair struct {
	cancel             context.CancelFunc
	reference, subject *recorder
	watches            map[int64]*pb.WatchCreateRequest // the active ones by id
	createdAt          int64                            // the revision when the last of them was created
}

func (p *pair) sides() []*recorder { return []*recorder{p.reference, p.subject} }

// send gives a copy of the request to both sides. A stream that has ended says so when it is awaited.
func (p *pair) send(r *pb.WatchRequest) {
	for _, side := range p.sides() {
		_ = side.stream.Send(proto.Clone(r).(*pb.WatchRequest))
	}
}

// openPair starts the streams. etcd answers nothing before the first watch is created.
func (e *engine) openPair(ctx context.Context) (*pair, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pair{cancel: cancel, watches: make(map[int64]*pb.WatchCreateRequest)}
	for _, side := range []struct {
		endpoint *endpoint
		into     **recorder
	}{{e.reference, &p.reference}, {e.subject, &p.subject}} {
		stream, err := pb.NewWatchClient(side.endpoint.conn).Watch(ctx)
		if err != nil {
			cancel()
			return nil, e.mismatch(pb.Watch_Watch_FullMethodName, fmt.Sprintf("opening a stream on the %s: %v", side.endpoint.name, err))
		}
		*side.into = record(side.endpoint, stream)
	}
	e.pairs = append(e.pairs, p)
	return p, nil
}

// watch creates a watch on a new or an old stream and awaits the answer.
func (e *engine) watch(ctx context.Context) error {
	var p *pair
	if len(e.pairs) < maxPairs && (len(e.pairs) == 0 || e.chance(6)) {
		var err error
		if p, err = e.openPair(ctx); err != nil {
			return err
		}
	} else {
		p = pick(e.rng, e.pairs)
	}
	if len(p.watches) >= maxWatches {
		return nil
	}
	request := e.watchRequest()
	before := p.reference.count().created
	p.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}})
	what := describe(pb.Watch_Watch_FullMethodName+" create", request)
	if err := e.await(ctx, p, what, func(n counts) bool { return n.created > before }); err != nil {
		return err
	}
	id := p.reference.count().lastCreated
	if id < 0 {
		return e.match(p, what, id) // refused
	}
	p.watches[id], p.createdAt = request, e.rev
	if request.StartRevision > 0 && request.StartRevision < e.compacted {
		return e.afterCompaction(ctx, p, id, what)
	}
	return nil
}

func (e *engine) watchRequest() *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{PrevKv: e.chance(2), Fragment: e.chance(2), ProgressNotify: e.chance(4)}
	r.Key, r.RangeEnd = e.space.interval(e.rng, true)
	if e.chance(6) {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_FilterType(e.rng.IntN(2)))
	}
	if e.chance(5) {
		r.WatchId = 1 + e.rng.Int64N(5)
	}
	switch e.rng.IntN(8) {
	case 0, 1, 2:
		r.StartRevision = e.revision()
		if r.StartRevision == e.compacted { // what is left of this revision depends on how far the compaction has come
			r.StartRevision++
		}
	case 3:
		r.StartRevision = e.rev + 1 + e.rng.Int64N(4)
	case 4:
		if e.chance(3) {
			r.StartRevision = -1 - e.rng.Int64N(3)
		}
	}
	return r
}

// afterCompaction awaits the cancellation of a watch that began before the compacted revision. etcd keeps such a watch, and gives the stream no
// progress, until the client cancels it as well.
func (e *engine) afterCompaction(ctx context.Context, p *pair, id int64, what string) error {
	if err := e.await(ctx, p, what+" and its cancellation", func(n counts) bool { return n.canceled[id] > 0 }); err != nil {
		return err
	}
	return e.cancelWatch(ctx, p, id, 1, what)
}

// cancelWatch cancels a watch that was cancelled so many times before.
func (e *engine) cancelWatch(ctx context.Context, p *pair, id int64, before int, what string) error {
	p.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
	if err := e.await(ctx, p, what+" cancel", func(n counts) bool { return n.canceled[id] > before }); err != nil {
		return err
	}
	defer delete(p.watches, id)
	return e.match(p, what, id)
}

// watchCancel cancels a watch, or one that does not exist, to which etcd says nothing.
func (e *engine) watchCancel(ctx context.Context) error {
	if len(e.pairs) == 0 {
		return nil
	}
	p := pick(e.rng, e.pairs)
	if len(p.watches) == 0 || e.chance(8) {
		p.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 99}}})
		p.send(&pb.WatchRequest{})
		return nil
	}
	id := pick(e.rng, slices.Sorted(maps.Keys(p.watches)))
	if err := e.settle(ctx, p); err != nil {
		return err
	}
	return e.cancelWatch(ctx, p, id, 0, fmt.Sprintf("%s cancel %d", pb.Watch_Watch_FullMethodName, id))
}

func (e *engine) watchSettle(ctx context.Context) error {
	if len(e.pairs) == 0 {
		return nil
	}
	return e.settle(ctx, pick(e.rng, e.pairs))
}

func (e *engine) watchClose(ctx context.Context) error {
	if len(e.pairs) == 0 {
		return nil
	}
	i := e.rng.IntN(len(e.pairs))
	if err := e.settle(ctx, e.pairs[i]); err != nil {
		return err
	}
	e.pairs[i].close()
	e.pairs = slices.Delete(e.pairs, i, i+1)
	return nil
}

func (p *pair) close() {
	p.cancel()
	for _, side := range p.sides() {
		<-side.done
	}
}

func (e *engine) closeStreams() {
	for _, p := range e.pairs {
		p.close()
	}
}
