package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Tokens logs in to an etcd whose authentication is switched on. It is safe for
// concurrent use.
type Tokens interface {
	// Token returns a token to send with a call; "" is none.
	Token(ctx context.Context) (string, error)
	// Invalidate says that etcd refused a token, so that the next one is
	// another.
	Invalidate(token string)
}

// withTokens has every call carry a token. One whose token is refused is made once more
// with another: etcd has then done nothing. clientv3's own way is not used, for it never
// learns of another password.
func withTokens(tokens Tokens) []grpc.DialOption {
	unary := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		token, err := tokens.Token(ctx)
		if err != nil {
			return err
		}
		err = call(withToken(ctx, token), method, request, reply, conn, opts...)
		if !refused(err) {
			return err
		}
		tokens.Invalidate(token)
		if token, err = tokens.Token(ctx); err != nil {
			return err
		}
		if err = call(withToken(ctx, token), method, request, reply, conn, opts...); refused(err) {
			return fmt.Errorf("with a new token: %w", err) // which clientv3 does not take for a reason to try again
		}
		return err
	}
	stream := func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		token, err := tokens.Token(ctx)
		if err != nil {
			return nil, err
		}
		return open(withToken(ctx, token), desc, conn, method, opts...)
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(stream)}
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

// refused reports whether etcd did not look at a call since its token is unknown,
// outdated or missing.
func refused(err error) bool {
	known := rpctypes.Error(err)
	return errors.Is(known, rpctypes.ErrInvalidAuthToken) || errors.Is(known, rpctypes.ErrAuthOldRevision) || errors.Is(known, rpctypes.ErrUserEmpty)
}
