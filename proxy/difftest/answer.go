package difftest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
)

// answer is everything that a client can see of one call. A stream's messages are in order.
type answer struct {
	messages        []proto.Message
	status          *status.Status
	header, trailer metadata.MD
}

// diff is empty when the two are equal.
func (a answer) diff(b answer) string {
	if slices.EqualFunc(a.messages, b.messages, proto.Equal) && proto.Equal(a.status.Proto(), b.status.Proto()) &&
		cmp.Equal(a.header, b.header) && cmp.Equal(a.trailer, b.trailer) {
		return ""
	}
	type readable struct {
		Messages        []proto.Message
		Status          proto.Message
		Header, Trailer metadata.MD
	}
	return textOf(readable{condensed(a.messages), a.status.Proto(), a.header, a.trailer}, readable{condensed(b.messages), b.status.Proto(), b.header, b.trailer})
}

// textOf shows the difference of two things that are known to differ.
func textOf(a, b any) string {
	if d := cmp.Diff(a, b, protocmp.Transform()); d != "" {
		return d
	}
	return "the messages differ in a way that has no text form"
}

// condensed copies messages with long byte fields cut short and hashed: a difference of long texts takes minutes to make, and nobody reads it.
func condensed(messages []proto.Message) []proto.Message {
	out := make([]proto.Message, len(messages))
	for i, m := range messages {
		out[i] = proto.Clone(m)
		condense(out[i].ProtoReflect())
	}
	return out
}

// describe is a request in text, with long values cut short.
func describe(method string, request proto.Message) string {
	return method + " {" + prototext.Format(condensed([]proto.Message{request})[0]) + "}"
}

func condense(m protoreflect.Message) {
	const long = 96
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				condense(v.List().Get(i).Message())
			}
		case field.IsList() || field.IsMap():
		case field.Kind() == protoreflect.MessageKind:
			condense(v.Message())
		case field.Kind() == protoreflect.BytesKind && len(v.Bytes()) > long:
			b := v.Bytes()
			m.Set(field, protoreflect.ValueOfBytes(fmt.Appendf(nil, "%s ... %d bytes, sha256 %x", b[:long/2], len(b), sha256.Sum256(b))))
		}
		return true
	})
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
