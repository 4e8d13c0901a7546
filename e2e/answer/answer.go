// Package answer makes raw gRPC calls, records everything that a client can see
// of them, and compares: messages, code, text, header and trailer. It knows
// the methods of etcd's API from the descriptors that are linked in, so that a
// call is its name and its request.
package answer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
)

// Answer is what a client sees of one call, or of a part of a stream.
type Answer struct {
	Messages        []proto.Message
	Code            codes.Code
	Text            string
	Header, Trailer metadata.MD
}

// Diff is empty when the two are equal, else it shows what differs, want "-".
func Diff(want, got Answer) string {
	if slices.EqualFunc(want.Messages, got.Messages, proto.Equal) && want.Code == got.Code && want.Text == got.Text &&
		cmp.Equal(want.Header, got.Header) && cmp.Equal(want.Trailer, got.Trailer) {
		return "" // found out by itself, since a difference of long values takes minutes to make
	}
	if d := cmp.Diff(want.condensed(), got.condensed(), protocmp.Transform()); d != "" {
		return d
	}
	return "the messages differ in a way that has no text form"
}

// condensed is the answer with long values cut short.
func (a Answer) condensed() Answer {
	a.Messages = slices.Clone(a.Messages)
	for i, m := range a.Messages {
		a.Messages[i] = proto.Clone(m)
		_ = protorange.Range(a.Messages[i].ProtoReflect(), condense)
	}
	return a
}

// longest is how much of a value a difference shows.
const longest = 100

// condense cuts one field short. Its hash stays.
func condense(path protopath.Values) error {
	last := path.Index(-1)
	parent := path.Index(-2)
	b, ok := last.Value.Interface().([]byte)
	if !ok || len(b) <= longest || last.Step.Kind() != protopath.FieldAccessStep {
		return nil
	}
	short := fmt.Appendf(nil, "%s... %d bytes, sha256 %x", b[:longest/2], len(b), sha256.Sum256(b))
	parent.Value.Message().Set(last.Step.FieldDescriptor(), protoreflect.ValueOfBytes(short))
	return nil
}

// end takes a call's error over. The end of a stream is none.
func (a *Answer) end(err error) {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	s := status.Convert(err)
	a.Code, a.Text = s.Code(), s.Message()
}

// Unary calls a method, such as "etcdserverpb.KV/Put".
func Unary(ctx context.Context, conn grpc.ClientConnInterface, method string, request proto.Message) Answer {
	var a Answer
	response := newMessage(find(method).Output())
	err := conn.Invoke(ctx, "/"+method, request, response, grpc.Header(&a.Header), grpc.Trailer(&a.Trailer))
	if a.end(err); err == nil {
		a.Messages = []proto.Message{response}
	}
	return a
}

// Bytes calls a method, which may be one that does not exist, with messages that need
// not be any.
func Bytes(ctx context.Context, conn grpc.ClientConnInterface, method string, messages ...[]byte) Answer {
	s := &Stream{}
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method, "/", "."))); err == nil {
		s.output = d.(protoreflect.MethodDescriptor).Output()
	} else {
		s.output = (&etcdserverpb.RangeResponse{}).ProtoReflect().Descriptor() // none is to come
	}
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	var err error
	if s.stream, err = conn.NewStream(ctx, desc, "/"+method, grpc.ForceCodecV2(bytesCodec{})); err != nil {
		var a Answer
		a.end(err)
		return a
	}
	for _, m := range messages {
		_ = s.stream.SendMsg(m) // a stream that has ended says so to who receives
	}
	s.CloseSend()
	return s.Receive(nil)
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

// Name is empty, which leaves the content-type as other calls have it.
func (bytesCodec) Name() string { return "" }

// Stream is an open call of a streaming method.
type Stream struct {
	stream grpc.ClientStream
	output protoreflect.MessageDescriptor
}

// Open begins a call of a streaming method. It ends with ctx.
func Open(ctx context.Context, conn grpc.ClientConnInterface, method string) (*Stream, error) {
	md := find(method)
	desc := &grpc.StreamDesc{ServerStreams: md.IsStreamingServer(), ClientStreams: md.IsStreamingClient()}
	stream, err := conn.NewStream(ctx, desc, "/"+method)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", method, err)
	}
	return &Stream{stream, md.Output()}, nil
}

// Send sends requests. What came of them is in what Receive returns.
func (s *Stream) Send(requests ...proto.Message) {
	for _, r := range requests {
		_ = s.stream.SendMsg(r) // a stream that has ended says so to who receives
	}
}

// CloseSend says that no more requests come.
func (s *Stream) CloseSend() { _ = s.stream.CloseSend() }

// Receive receives until last, which may be nil, returns true for a message, or the
// stream ends. Header and trailer are those of a stream that has ended.
func (s *Stream) Receive(last func(proto.Message) bool) Answer {
	var a Answer
	for {
		m := newMessage(s.output)
		if err := s.stream.RecvMsg(m); err != nil {
			a.end(err)
			a.Header, _ = s.stream.Header() // its error is the stream's
			a.Trailer = s.stream.Trailer()
			return a
		}
		a.Messages = append(a.Messages, m)
		if last != nil && last(m) {
			return a
		}
	}
}

// Ids are a cluster's and a member's names for themselves. No two clusters have the
// same, so that they are checked and taken out before answers are compared.
type Ids struct{ cluster, member, term uint64 }

// Strip takes the ids out of the headers in an answer. The first header sets
// them, all others must have the same.
func (ids *Ids) Strip(a Answer) error {
	for _, m := range a.Messages {
		h := header(m)
		if h == nil {
			continue
		}
		got := Ids{h.ClusterId, h.MemberId, h.RaftTerm}
		if *ids == (Ids{}) {
			*ids = got
		}
		if got != *ids {
			return fmt.Errorf("a header has the ids %v, the first had %v", got, *ids)
		}
		h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	}
	return nil
}

// header is the header of a response, nil if it has none.
func header(m proto.Message) *etcdserverpb.ResponseHeader {
	if chunk, ok := m.(*etcdserverpb.RangeStreamResponse); ok {
		return chunk.GetRangeResponse().GetHeader()
	}
	if h, ok := m.(interface {
		GetHeader() *etcdserverpb.ResponseHeader
	}); ok {
		return h.GetHeader()
	}
	return nil
}

// find looks a method up by "package.Service/Method". Tests name methods that are
// there.
func find(method string) protoreflect.MethodDescriptor {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method, "/", ".")))
	if err != nil {
		panic(fmt.Sprintf("looking up %s: %v", method, err))
	}
	return d.(protoreflect.MethodDescriptor)
}

// newMessage makes an empty message. Descriptors and Go types of generated code are
// registered together.
func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err)
	}
	return t.New().Interface()
}
