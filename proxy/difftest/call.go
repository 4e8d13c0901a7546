package difftest

import (
	"context"
	"fmt"
	"path"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// endpoint is one of the two sides.
type endpoint struct {
	name string
	conn grpc.ClientConnInterface

	mu  sync.Mutex         // watch streams check headers too
	ids *pb.ResponseHeader // of the first answer; all others must have the same
}

// strip checks the ids in a header and removes them, since no two clusters have the same.
func (p *endpoint) strip(h *pb.ResponseHeader) error {
	if h == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids == nil {
		p.ids = proto.Clone(h).(*pb.ResponseHeader)
	}
	if h.ClusterId != p.ids.ClusterId || h.MemberId != p.ids.MemberId || h.RaftTerm != p.ids.RaftTerm {
		return fmt.Errorf("the %s's header has other ids than its first: %v, first %v", p.name, h, p.ids)
	}
	h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	return nil
}

// call makes one unary call on both endpoints at once and compares. into is an empty message of the response's type. level, when not nil, removes
// from the two responses what may differ. The reference's response is returned, nil when the call failed on both in the same way.
func call[R proto.Message](ctx context.Context, e *engine, method string, request proto.Message, into R, level func(reference, subject R)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	var none R
	invoke := func(p *endpoint) answer {
		response := into.ProtoReflect().New().Interface().(R)
		var a answer
		err := p.conn.Invoke(ctx, method, request, response, grpc.Header(&a.header), grpc.Trailer(&a.trailer), grpc.WaitForReady(true))
		if a.status = status.Convert(err); err == nil {
			a.messages = []proto.Message{response}
		}
		return a
	}
	r, s := both(e, invoke)
	if level != nil && len(r.messages) == 1 && len(s.messages) == 1 {
		level(r.messages[0].(R), s.messages[0].(R))
	}
	if err := e.compare(method, request, r, s); err != nil {
		return none, err
	}
	if len(r.messages) == 0 {
		return none, nil
	}
	return r.messages[0].(R), nil
}

// both runs f for the two endpoints at once.
func both[T any](e *engine, f func(*endpoint) T) (reference, subject T) {
	var wait sync.WaitGroup
	wait.Go(func() { subject = f(e.subject) })
	reference = f(e.reference)
	wait.Wait()
	return reference, subject
}

// compare checks headers, compares the answers and takes the revision from the reference's.
func (e *engine) compare(method string, request proto.Message, r, s answer) error {
	text := func() string { return describe(method, request) }
	for _, side := range []struct {
		p *endpoint
		a answer
	}{{e.reference, r}, {e.subject, s}} {
		for _, m := range side.a.messages {
			if err := side.p.strip(headerOf(m)); err != nil {
				return e.mismatch(text(), err.Error())
			}
		}
	}
	if d := r.diff(s); d != "" {
		return e.mismatch(text(), d)
	}
	e.codes[path.Base(method)+" "+r.status.Code().String()]++
	for _, m := range r.messages {
		if h := headerOf(m); h != nil {
			e.rev = max(e.rev, h.Revision)
		}
	}
	return nil
}
