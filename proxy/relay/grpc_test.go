package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// server is a gRPC service that shows what it was sent.
type server struct {
	testpb.UnimplementedTestServiceServer
}

func (server) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("saw", fmt.Sprint(md["token"]), "bin-bin", "\x00\xff"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("after", "wards"))
	if st := r.GetResponseStatus(); st != nil {
		return nil, status.Error(codes.Code(st.Code), st.Message)
	}
	if r.GetFillUsername() { // waits for the caller to give up
		<-ctx.Done()
		return nil, ctx.Err()
	}
	size := int(r.GetResponseSize())
	if size == 0 {
		return &testpb.SimpleResponse{Payload: r.GetPayload()}, nil
	}
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, size)}}, nil
}

func (server) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if st := r.GetResponseStatus(); st != nil {
			return status.Error(codes.Code(st.Code), st.Message)
		}
		for _, p := range r.GetResponseParameters() {
			if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.Size)}}); err != nil {
				return err
			}
		}
	}
}

// relayed starts a gRPC server, pairs in front of it, and a client of those.
func relayed(t testing.TB, cfg Config, codec func() Codec) testpb.TestServiceClient {
	t.Helper()
	up := listen(t)
	s := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.MaxConcurrentStreams(1<<20))
	testpb.RegisterTestServiceServer(s, server{})
	go func() { _ = s.Serve(up) }()
	t.Cleanup(s.Stop)
	front := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := front.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { servePair(ctx, cfg, conn, up.Addr().String(), codec) })
		}
	})
	t.Cleanup(func() { front.Close(); cancel(); wg.Wait() })
	c, err := grpc.NewClient(front.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return testpb.NewTestServiceClient(c)
}

func listen(t testing.TB) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func servePair(ctx context.Context, cfg Config, conn net.Conn, target string, codec func() Codec) {
	client, _, err := ReadPreface(conn, 10*time.Second)
	if err != nil {
		conn.Close()
		return
	}
	up, err := net.Dial("tcp", target)
	if err != nil {
		conn.Close()
		return
	}
	_ = New(cfg, &testSession{route: func(string) Route {
		if codec == nil {
			return Route{}
		}
		return Route{Codec: codec()}
	}}, client, up).Run(ctx)
}

var codecs = map[string]func() Codec{
	"raw":      nil,
	"in place": func() Codec { return &funcs{} },
	"copied": func() Codec {
		return &funcs{rewrite: func(_ Direction, msg, scratch []byte) Verdict { return Verdict{Msg: append(scratch[:0], msg...)} }}
	},
	"parked": func() Codec {
		return &funcs{rewrite: func(Direction, []byte, []byte) Verdict { return Verdict{Action: Park} }}
	},
}

func eachCodec(t *testing.T, test func(t *testing.T, ctx context.Context, c testpb.TestServiceClient)) {
	for name, codec := range codecs {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			budget := int64(8 << 20)
			if name == "parked" {
				budget = 64 << 20 // a call that waits keeps its place, and one that finds none is refused
			}
			test(t, ctx, relayed(t, Config{Budget: NewBudget(budget)}, codec))
		})
	}
}

func TestGRPCCallsPass(t *testing.T) {
	eachCodec(t, func(t *testing.T, ctx context.Context, c testpb.TestServiceClient) {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", "secret")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				body := bytes.Repeat([]byte{byte(i)}, i*i*50)
				var opts []grpc.CallOption
				if i%3 == 0 {
					opts = append(opts, grpc.UseCompressor(gzip.Name))
				}
				var header, trailer metadata.MD
				opts = append(opts, grpc.Header(&header), grpc.Trailer(&trailer))
				got, err := c.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: body}}, opts...)
				if err != nil || !bytes.Equal(got.GetPayload().GetBody(), body) {
					t.Errorf("call %d: %d bytes, %v", i, len(got.GetPayload().GetBody()), err)
				}
				if fmt.Sprint(header["saw"], header["bin-bin"], trailer["after"]) != "[[secret]] [\x00\xff] [wards]" {
					t.Errorf("call %d: header %v, trailer %v", i, header, trailer)
				}
			})
		}
		wg.Wait()
	})
}

func TestGRPCErrorsPass(t *testing.T) {
	eachCodec(t, func(t *testing.T, ctx context.Context, c testpb.TestServiceClient) {
		want := status.New(codes.DataLoss, "etcdserver: 100% lost\n\u00e9")
		_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(want.Code()), Message: want.Message()}})
		if status.Convert(err).String() != want.String() {
			t.Errorf("got %v", err)
		}
		if _, err := c.UnimplementedCall(ctx, &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("got %v", err)
		}
		short, cancel := context.WithCancel(ctx)
		cancelled := make(chan error)
		go func() {
			_, err := c.UnaryCall(short, &testpb.SimpleRequest{FillUsername: true})
			cancelled <- err
		}()
		cancel()
		if err := <-cancelled; status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
	})
}

// TestGRPCStreamsGoOnBesideOneThatIsNotRead leaves a stream full and unread
// while calls and streams go on, then reads it to its end.
func TestGRPCStreamsGoOnBesideOneThatIsNotRead(t *testing.T) {
	eachCodec(t, func(t *testing.T, ctx context.Context, c testpb.TestServiceClient) {
		slow, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r := &testpb.StreamingOutputCallRequest{}
		for range 300 {
			r.ResponseParameters = append(r.ResponseParameters, &testpb.ResponseParameters{Size: 50_000})
		}
		if err := errors.Join(slow.Send(r), slow.CloseSend()); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					if got, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: 100_000}); err != nil || len(got.GetPayload().GetBody()) != 100_000 {
						t.Errorf("call: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		for i := range 300 {
			if m, err := slow.Recv(); err != nil || len(m.GetPayload().GetBody()) != 50_000 {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		if _, err := slow.Recv(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

// TestGRPCLargeMessages are larger than every window, and than the budget.
func TestGRPCLargeMessages(t *testing.T) {
	eachCodec(t, func(t *testing.T, ctx context.Context, c testpb.TestServiceClient) {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				body := bytes.Repeat([]byte("large"), 2<<20)
				got, err := c.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: body}})
				if err != nil || !bytes.Equal(got.GetPayload().GetBody(), body) {
					t.Errorf("%d bytes, %v", len(got.GetPayload().GetBody()), err)
				}
			})
		}
		wg.Wait()
	})
}

// TestGRPCServerEndsStreamsEarly: the trailers come before the client's end.
func TestGRPCServerEndsStreamsEarly(t *testing.T) {
	eachCodec(t, func(t *testing.T, ctx context.Context, c testpb.TestServiceClient) {
		for range 50 {
			s, err := c.FullDuplexCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: 9, Message: "enough"}}); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if _, err := s.Recv(); status.Code(err) != codes.FailedPrecondition {
				t.Fatalf("got %v", err)
			}
		}
	})
}
