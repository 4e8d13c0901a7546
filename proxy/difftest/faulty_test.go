package difftest

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// faulty is a connection that spoils answers.
type faulty struct {
	grpc.ClientConnInterface
	unary    func(method string, reply proto.Message, err error) error // sees every unary answer, and returns what becomes of its error
	stream   func(message proto.Message) (drop, again bool)            // sees every message of a stream, and says what becomes of it
	header   metadata.MD                                               // comes with every unary answer
	injected *atomic.Int64
}

func (f faulty) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := f.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	for _, o := range opts {
		if h, ok := o.(grpc.HeaderCallOption); ok && f.header != nil {
			*h.HeaderAddr = metadata.Join(*h.HeaderAddr, f.header)
			f.injected.Add(1)
		}
	}
	if f.unary != nil {
		before := proto.Clone(reply.(proto.Message))
		spoiled := f.unary(method, reply.(proto.Message), err)
		if !errors.Is(spoiled, err) || !proto.Equal(before, reply.(proto.Message)) {
			f.injected.Add(1)
		}
		return spoiled
	}
	return err
}

func (f faulty) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := f.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil || f.stream == nil {
		return s, err
	}
	return &faultyStream{ClientStream: s, faulty: f}, nil
}

type faultyStream struct {
	grpc.ClientStream
	faulty faulty
	again  proto.Message
}

func (s *faultyStream) RecvMsg(m any) error {
	if s.again != nil {
		proto.Merge(m.(proto.Message), s.again)
		s.again = nil
		return nil
	}
	for {
		if err := s.ClientStream.RecvMsg(m); err != nil {
			return err
		}
		before := proto.Clone(m.(proto.Message))
		drop, again := s.faulty.stream(m.(proto.Message))
		if drop || again || !proto.Equal(before, m.(proto.Message)) {
			s.faulty.injected.Add(1)
		}
		if again {
			s.again = before
		}
		if !drop {
			return nil
		}
		proto.Reset(m.(proto.Message))
	}
}

// onReply spoils successful answers of one type.
func onReply[R proto.Message](spoil func(R)) func(string, proto.Message, error) error {
	return func(_ string, reply proto.Message, err error) error {
		if r, ok := reply.(R); ok && err == nil {
			spoil(r)
		}
		return err
	}
}

// onError turns errors of one code into others.
func onError(code codes.Code, spoil func(error) error) func(string, proto.Message, error) error {
	return func(_ string, _ proto.Message, err error) error {
		if status.Code(err) == code {
			return spoil(err)
		}
		return err
	}
}

// onMessage spoils, drops or repeats messages of one type.
func onMessage[M proto.Message](spoil func(M) (drop, again bool)) func(proto.Message) (bool, bool) {
	return func(m proto.Message) (bool, bool) {
		if t, ok := m.(M); ok {
			return spoil(t)
		}
		return false, false
	}
}

// onEvent spoils events of watches.
func onEvent(spoil func(*mvccpb.Event)) func(proto.Message) (bool, bool) {
	return onMessage(func(m *pb.WatchResponse) (bool, bool) {
		for _, e := range m.Events {
			spoil(e)
		}
		return false, false
	})
}

func flip(b []byte) {
	if len(b) > 0 {
		b[len(b)/2] ^= 1
	}
}

func isSealed(kv *mvccpb.KeyValue) bool { return kv != nil && bytes.HasPrefix(kv.Key, []byte(sealed)) }
