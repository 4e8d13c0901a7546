package difftest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// progressInterval is how often progress is asked for: etcd says nothing while a watch has still to catch up, which it does every 100 ms.
const progressInterval = 10 * time.Millisecond

// settleAll settles every pair at one and the same revision.
func (e *engine) settleAll(ctx context.Context) error {
	for _, p := range e.pairs {
		if err := e.advance(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range e.pairs {
		if err := e.settle(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until both streams have delivered every event up to the present revision, which a progress notification promises, and compares what
// they delivered.
func (e *engine) settle(ctx context.Context, p *pair) error {
	what := pb.Watch_Watch_FullMethodName + " progress"
	if len(p.watches) == 0 {
		return e.match(p, what)
	}
	if err := e.advance(ctx, p); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(p.watches)) {
		what += fmt.Sprintf("\nwatch %d: %s", id, describe("create", p.watches[id]))
	}
	for _, side := range p.sides() {
		if err := e.progress(ctx, side, what); err != nil {
			return err
		}
	}
	return e.match(p, what)
}

// advance writes until no watch begins in the future, for etcd gives no progress before, and until the revision is not one of which an answer to an
// earlier request for progress, from before the last watch was created, may still be on its way.
func (e *engine) advance(ctx context.Context, p *pair) error {
	least := int64(0)
	for _, w := range p.watches {
		least = max(least, w.StartRevision, p.createdAt+1)
	}
	for e.rev < least {
		if err := e.send(ctx, &pb.PutRequest{Key: e.space.key(e.rng), Value: []byte("settle")}); err != nil {
			return err
		}
	}
	return nil
}

// progress asks again and again until the answer names the present revision. A later one would be of a write that nobody made.
func (e *engine) progress(ctx context.Context, side *recorder, what string) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	for {
		_ = side.stream.Send(request) // a stream that has ended says so below
		n, changed := side.look()
		if n.progress == e.rev {
			return nil
		}
		if n.progress > e.rev || n.fault != nil {
			return e.mismatch(what, fmt.Sprintf("the %s's progress is %d at revision %d; %v", side.endpoint.name, n.progress, e.rev, n.fault))
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return e.mismatch(what, fmt.Sprintf("the %s gave no progress to revision %d, only to %d", side.endpoint.name, e.rev, n.progress))
		}
	}
}

// await waits until both sides have received what ready looks for.
func (e *engine) await(ctx context.Context, p *pair, what string, ready func(counts) bool) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	for _, side := range p.sides() {
		for {
			n, changed := side.look()
			if ready(n) {
				break
			}
			if n.fault != nil {
				return e.mismatch(what, fmt.Sprintf("the %s: %v", side.endpoint.name, n.fault))
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return e.mismatch(what, fmt.Sprintf("the %s gave no answer", side.endpoint.name))
			}
		}
	}
	return nil
}

// match compares what the two streams have delivered for some watches since the last time, and forgets it; for all when none is named, which is
// right only after progress, since streams may be at different events before.
func (e *engine) match(p *pair, what string, ids ...int64) error {
	for _, side := range p.sides() {
		if n := side.count(); n.fault != nil {
			return e.mismatch(what, fmt.Sprintf("the %s: %v", side.endpoint.name, n.fault))
		}
	}
	if len(ids) == 0 {
		ids = append(p.reference.logged(), p.subject.logged()...)
		slices.Sort(ids)
		ids = slices.Compact(ids)
	}
	for _, id := range ids {
		reference, subject := p.reference.take(id), p.subject.take(id)
		e.levelEarly(p, id, reference, subject)
		e.events += len(reference)
		if slices.EqualFunc(reference, subject, proto.Equal) {
			continue
		}
		r, s := fromFirstDifference(reference, subject)
		return e.mismatch(what, fmt.Sprintf("watch %d:\n%s", id, textOf(condensed(r), condensed(s))))
	}
	return nil
}

// maxEarly is how often in a run the history that a new watch gets may lack prev_kv on one side.
const maxEarly = 3

// levelEarly is for a new watch that asked for prev_kv. etcd starts the watch and only then notes the wish (etcdserver/api/v3rpc/watch.go, recvLoop),
// so that what it delivers in between lacks prev_kv. Where a side's first response has none at all, it is taken away from the other's as well.
func (e *engine) levelEarly(p *pair, id int64, reference, subject []proto.Message) {
	if w := p.watches[id]; w == nil || !w.PrevKv || w.StartRevision <= 0 || e.early == maxEarly {
		return
	}
	differs := false
	bare := max(p.reference.bareStart(id), p.subject.bareStart(id))
	for i := 0; i < min(len(reference), len(subject)) && bare > 0; i++ {
		r, isEvent := reference[i].(*mvccpb.Event)
		s, same := subject[i].(*mvccpb.Event)
		if !isEvent || !same {
			continue
		}
		bare--
		differs = differs || (r.PrevKv == nil) != (s.PrevKv == nil)
		r.PrevKv, s.PrevKv = nil, nil
	}
	if differs {
		e.early++
	}
}

// fromFirstDifference leaves out what is equal at the beginning, and all but a few messages after it.
func fromFirstDifference(a, b []proto.Message) (restA, restB []proto.Message) {
	i := 0
	for i < len(a) && i < len(b) && proto.Equal(a[i], b[i]) {
		i++
	}
	const few = 3
	return a[i:min(len(a), i+few)], b[i:min(len(b), i+few)]
}
