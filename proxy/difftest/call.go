package difftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// patience bounds the wait for any one answer.
const patience = time.Minute

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

// answer is everything that a client can see of one call. A stream's messages are in order.
type answer struct {
	messages        []proto.Message
	status          *status.Status
	header, trailer metadata.MD
}

func (a answer) diff(b answer) string {
	type plain struct {
		Messages        []proto.Message
		Status          proto.Message
		Header, Trailer metadata.MD
	}
	equal := len(a.messages) == len(b.messages) && proto.Equal(a.status.Proto(), b.status.Proto())
	for i := range min(len(a.messages), len(b.messages)) {
		equal = equal && proto.Equal(a.messages[i], b.messages[i])
	}
	if equal && cmp.Equal(a.header, b.header) && cmp.Equal(a.trailer, b.trailer) {
		return ""
	}
	d := cmp.Diff(plain{a.messages, a.status.Proto(), a.header, a.trailer}, plain{b.messages, b.status.Proto(), b.header, b.trailer}, protocmp.Transform())
	if d == "" { // protocmp takes unset and empty for different, and more; it never takes different for equal
		d = "messages differ in a way that has no text form"
	}
	return d
}

// call makes one unary call on both endpoints at once and compares. into is an empty message of the response's type. level, when not nil, removes
// from the two responses what may differ. The reference's response is returned, nil when the call failed on both in the same way.
func call[R proto.Message](ctx context.Context, e *engine, method string, request proto.Message, into R, level func(reference, subject R)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
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
	text := func() string { return method + " {" + prototext.Format(request) + "}" }
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

// headerOf is the header of any response of etcd; nil when it has none.
func headerOf(m proto.Message) *pb.ResponseHeader {
	if chunk, ok := m.(*pb.RangeStreamResponse); ok {
		return chunk.GetRangeResponse().GetHeader()
	}
	if h, ok := m.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		return h.GetHeader()
	}
	return nil
}

// receive collects the messages of a stream until its end.
func receive[M any](stream grpc.ServerStreamingClient[M], err error) ([]*M, answer) {
	var messages []*M
	var a answer
	for err == nil {
		var m *M
		if m, err = stream.Recv(); err == nil {
			messages = append(messages, m)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	a.status = status.Convert(err)
	if stream != nil {
		a.trailer = stream.Trailer()
		a.header, _ = stream.Header() // its error is the stream's, which is in the status
	}
	return messages, a
}
