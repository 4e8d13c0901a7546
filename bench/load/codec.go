package load

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// codec sends bytes as they are and keeps nothing of an answer but its length.
type codec struct{}

// request is a serialised message; replySize is the length of an answer in bytes.
type (
	request   []byte
	replySize int
)

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(request)
	if !ok {
		return nil, fmt.Errorf("marshalling %T: not a request", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(r)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	size, ok := v.(*replySize)
	if !ok {
		return fmt.Errorf("unmarshalling into %T: not a reply", v)
	}
	*size = replySize(data.Len())
	return nil
}

func call(ctx context.Context, conn *grpc.ClientConn, method string, r request) (int, error) {
	var size replySize
	err := conn.Invoke(ctx, method, r, &size, grpc.ForceCodecV2(codec{}), grpc.WaitForReady(true))
	return int(size), err
}
