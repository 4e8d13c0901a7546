package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// Tokens logs in to an etcd whose authentication is switched on, as etcdstore.Tokens does.
type Tokens interface {
	Token(ctx context.Context) (string, error)
	Invalidate(token string)
}

// Client is a client of etcd.
type Client = clientv3.Client

// DialConfig says which etcd, and as whom.
type DialConfig struct {
	Endpoints   []string
	Credentials credentials.TransportCredentials // nil: by the endpoints' schemes
	Tokens      Tokens                           // nil: none
}

// maxMessage bounds the memory for an answer: a page over it is read in smaller ones. It is
// far over what etcd takes for a request, so that etcd's own error says what is too large.
const maxMessage = 64 << 20

// Dial returns a client of etcd itself. It does not wait for etcd.
func Dial(c DialConfig) (*Client, error) {
	config := clientv3.Config{
		Endpoints: c.Endpoints, DialTimeout: 5 * time.Second, DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
		MaxCallSendMsgSize: maxMessage, MaxCallRecvMsgSize: maxMessage,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		})},
		Logger: zap.NewNop(),
	}
	if c.Credentials != nil {
		config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(c.Credentials))
	}
	if c.Tokens != nil {
		config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(unaryTokens(c.Tokens)), grpc.WithChainStreamInterceptor(streamTokens(c.Tokens)))
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("dialing etcd: %w", err)
	}
	return client, nil
}

// unaryTokens has calls carry a token. One whose token is refused, which etcd has then not
// looked at, is made once more with another.
func unaryTokens(tokens Tokens) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		for first := true; ; first = false {
			token, err := tokens.Token(ctx)
			if err != nil {
				return err
			}
			err = call(withToken(ctx, token), method, request, reply, conn, opts...)
			switch {
			case !refused(err):
				return err
			case !first:
				return fmt.Errorf("with a new token: %w", err) // which clientv3 does not take for a reason to try again
			}
			tokens.Invalidate(token)
		}
	}
}

func streamTokens(tokens Tokens) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		token, err := tokens.Token(ctx)
		if err != nil {
			return nil, err
		}
		return open(withToken(ctx, token), desc, conn, method, opts...)
	}
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

func refused(err error) bool {
	known := rpctypes.Error(err)
	return errors.Is(known, rpctypes.ErrInvalidAuthToken) || errors.Is(known, rpctypes.ErrAuthOldRevision) || errors.Is(known, rpctypes.ErrUserEmpty)
}
