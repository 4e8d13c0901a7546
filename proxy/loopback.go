package proxy

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// Loopback returns a gRPC connection to the server itself that passes no listener.
// Calls on it are guarded, sealed and opened like those of a client, on an upstream
// connection of their own to the named endpoint, or to the best one if it is empty.
// So whoever makes a client's call out of several others can work on plaintext and
// needs no key. They carry no identity but the metadata that the caller gives them,
// and are not counted in the metrics. The connection is made at the first call; the
// caller closes it.
func (s *Server) Loopback(endpoint string) (*grpc.ClientConn, error) {
	return s.loopback(loop{endpoint: endpoint})
}

// loop says what is particular to a connection of the server to itself.
type loop struct {
	endpoint string
	raw      bool   // values are passed as etcd stores them
	inner    bool   // it carries the calls of which assisted ones are made
	rules    *Rules // of the calls that it is made for, if inner and not raw
}

func (s *Server) loopback(l loop) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///loopback",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return s.serveLoop(l) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<31-1), grpc.MaxCallSendMsgSize(1<<31-1)),
		grpc.WithConnectParams(grpc.ConnectParams{ // etcd may be back in a moment
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: prefaceTime,
		}),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry())
}

// serveLoop serves one end of a pipe and returns the other.
func (s *Server) serveLoop(l loop) (net.Conn, error) {
	near, far := net.Pipe()
	dial := s.upstream.Dial
	if l.endpoint != "" {
		dial = func(ctx context.Context) (*upstream.Conn, error) { return s.upstream.DialTo(ctx, l.endpoint) }
	}
	cfg := s.relay
	cfg.Observer = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loops.closing {
		return nil, net.ErrClosed
	}
	s.loops.conns.Go(func() {
		stop := context.AfterFunc(s.ctx, func() { far.Close() })
		defer stop()
		defer far.Close()
		client, _, err := relay.ReadPreface(far, prefaceTime)
		if err != nil {
			return
		}
		s.carry(&s.loops, client, cfg, dial, l)
	})
	return near, nil
}
