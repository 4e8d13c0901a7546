package load

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// codec sends bytes as they are and keeps little of an answer.
type codec struct{}

// request is a serialised message.
type request []byte

// Reply is what is kept of an answer.
type Reply struct {
	Size      int   // of all messages, in bytes
	Messages  int   // more than one in a stream
	Revision  int64 // of the header; 0 when there was none
	Succeeded bool  // of a transaction
}

// beginning is how many bytes of an answer are looked at: etcd writes the header, which takes up to 40, first.
const beginning = 64

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(request)
	if !ok {
		return nil, fmt.Errorf("marshalling %T: not a request", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(r)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*Reply)
	if !ok {
		return fmt.Errorf("unmarshalling into %T: not a reply", v)
	}
	r.Size += data.Len()
	r.Messages++
	var begin [beginning]byte
	n := 0
	for _, b := range data {
		if n += copy(begin[n:], b.ReadOnlyData()); n == len(begin) {
			break
		}
	}
	r.parse(begin[:n])
	return nil
}

// parse finds the header's revision, and the field that follows it in a TxnResponse. What is cut off or different is left out.
func (r *Reply) parse(b []byte) {
	header, n := lengthDelimited(b)
	if n < 0 {
		return
	}
	if number, kind, m := protowire.ConsumeTag(b[n:]); number == 2 && kind == protowire.VarintType {
		succeeded, _ := protowire.ConsumeVarint(b[n+m:])
		r.Succeeded = succeeded == 1
	}
	for len(header) > 0 {
		number, kind, n := protowire.ConsumeTag(header)
		if n < 0 || kind != protowire.VarintType {
			return
		}
		value, m := protowire.ConsumeVarint(header[n:])
		if m < 0 {
			return
		}
		if number == 3 {
			r.Revision = int64(value)
		}
		header = header[n+m:]
	}
}

// lengthDelimited reads field 1; n is the number of bytes that it took, or negative.
func lengthDelimited(b []byte) (value []byte, n int) {
	number, kind, n := protowire.ConsumeTag(b)
	if number != 1 || kind != protowire.BytesType {
		return nil, -1
	}
	value, m := protowire.ConsumeBytes(b[n:])
	if m < 0 {
		return nil, -1
	}
	return value, n + m
}

// Invoke makes a unary call with a serialised request, which is not modified.
func Invoke(ctx context.Context, conn *grpc.ClientConn, method string, serialised []byte) (Reply, error) {
	var r Reply
	if err := conn.Invoke(ctx, method, request(serialised), &r, grpc.ForceCodecV2(codec{}), grpc.WaitForReady(true)); err != nil {
		return Reply{}, fmt.Errorf("calling %s: %w", method, err)
	}
	return r, nil
}

// Stream makes a call that is answered by a stream and reads it to its end.
func Stream(ctx context.Context, conn *grpc.ClientConn, method string, serialised []byte) (Reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var r Reply
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodecV2(codec{}), grpc.WaitForReady(true))
	if err == nil {
		err = stream.SendMsg(request(serialised))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		err = stream.RecvMsg(&r)
	}
	if !errors.Is(err, io.EOF) {
		return Reply{}, fmt.Errorf("calling %s: %w", method, err)
	}
	return r, nil
}

// Serialise turns messages into requests.
func Serialise[M proto.Message](messages ...M) ([][]byte, error) {
	out := make([][]byte, len(messages))
	for i, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("serialising request %d: %w", i, err)
		}
		out[i] = b
	}
	return out, nil
}
