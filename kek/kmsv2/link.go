package kmsv2

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	protobuf "google.golang.org/protobuf/proto"
)

// maxMessage bounds an answer in bytes. The largest that the limits allow has less
// than half of it.
const maxMessage = 128 << 10

// Waits between two tries to connect.
const (
	connectFirst = 50 * time.Millisecond
	connectLast  = time.Second
)

// link is the connection to the plugin. gRPC makes it again when it breaks.
type link struct {
	conn *grpc.ClientConn

	mu   sync.Mutex
	down error // why the last try to connect failed, nil if it did not
}

// connect makes a link and does not wait for it. A request waits for the connection as
// long as it may take at all, which bridges a plugin's restart.
func connect(address string, timeout time.Duration) (*link, error) {
	l := &link{}
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithAuthority("localhost"), // as kube-apiserver
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := dial(ctx, address)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.down = err
			return conn, err
		}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectLast},
			MinConnectTimeout: timeout,
		}),
		grpc.WithDefaultCallOptions(
			grpc.WaitForReady(true),
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.ForceCodecV2(wiper{encoding.GetCodecV2(proto.Name)}),
		),
	)
	if err != nil {
		return nil, err
	}
	l.conn = conn
	return l, nil
}

// broken returns why there is no connection, if the last try to make one failed.
func (l *link) broken() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// wiper is gRPC's own codec, but that it wipes an encoded request, which may hold a
// DEK, once gRPC has no more use for it.
type wiper struct{ encoding.CodecV2 }

// pooled is more than the size up to which gRPC never says that it is done with a
// buffer.
const pooled = 2 << 10

func (wiper) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(protobuf.Message)
	if !ok {
		return nil, fmt.Errorf("encoding a %T, want a protobuf message", v)
	}
	// With room for all, no copy is left behind by growing.
	encoded, err := protobuf.MarshalOptions{}.MarshalAppend(make([]byte, 0, max(pooled, protobuf.Size(message))), message)
	if err != nil {
		clear(encoded)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(&encoded, wipingPool{})}, nil
}

// Name is empty so that the content type is the plain one.
func (wiper) Name() string { return "" }

// wipingPool takes buffers in to wipe them.
type wipingPool struct{}

func (wipingPool) Get(length int) *[]byte {
	b := make([]byte, length)
	return &b
}

func (wipingPool) Put(b *[]byte) { clear((*b)[:cap(*b)]) }
