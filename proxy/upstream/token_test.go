package upstream

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// authServer is an etcd that knows nothing but Authenticate, which waits for the test.
type authServer struct {
	pb.UnimplementedAuthServer
	arrived chan string // the password of each call
	answer  chan string // the token for each call
	refuse  atomic.Bool // calls are refused instead
}

func (s *authServer) Authenticate(ctx context.Context, req *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	if s.refuse.Load() {
		return nil, rpctypes.ErrGRPCAuthFailed
	}
	s.arrived <- req.Password
	select {
	case token := <-s.answer:
		return &pb.AuthenticateResponse{Token: token}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// authPool returns a pool of an endpoint that refuses connections and of one with an authServer.
func authPool(t *testing.T) (*Pool, *authServer) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &authServer{arrived: make(chan string, 100), answer: make(chan string)}
	srv := grpc.NewServer()
	pb.RegisterAuthServer(srv, s)
	go func() { _ = srv.Serve(ln) }() // Stop waits for it
	t.Cleanup(srv.Stop)
	passwordFile := filepath.Join(t.TempDir(), "password")
	writePassword(t, passwordFile, "secret\n")
	p := newPool(t, Config{
		Endpoints:    []string{"http://refused:1", "http://" + ln.Addr().String()},
		Auth:         Auth{Username: "proxy", PasswordFile: passwordFile},
		ProbeTimeout: time.Hour,
	})
	plain := p.dial
	p.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "refused:1" {
			return nil, errRefused
		}
		return plain(ctx, network, address)
	}
	return p, s
}

// Callers that come together share one login, which does not end with the caller who began it.
func TestTokenIsSharedByCallers(t *testing.T) {
	p, s := authPool(t)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := p.Token(ctx)
		first <- err
	}()
	if password := <-s.arrived; password != "secret" {
		t.Errorf("password: got %q", password)
	}
	tokens := make(chan string, 8)
	for range cap(tokens) {
		go func() {
			token, err := p.Token(t.Context())
			if err != nil {
				t.Errorf("getting token: %v", err)
			}
			tokens <- token
		}()
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled caller: got %v", err)
	}
	s.answer <- "t1"
	for range cap(tokens) {
		if token := <-tokens; token != "t1" {
			t.Errorf("got %q, want t1", token)
		}
	}
	if n := len(s.arrived); n != 0 {
		t.Errorf("%d more logins", n)
	}
}

// answered answers one login and returns what Token got meanwhile.
func answered(t *testing.T, p *Pool, s *authServer, token string) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		token, err := p.Token(t.Context())
		if err != nil {
			t.Errorf("getting token: %v", err)
		}
		got <- token
	}()
	select {
	case <-s.arrived:
		s.answer <- token
		return <-got
	case old := <-got:
		t.Errorf("got %q without a login", old)
		return old
	}
}

// wantToken demands a token without a login.
func wantToken(t *testing.T, p *Pool, s *authServer, want string) {
	t.Helper()
	token, err := p.Token(t.Context())
	if err != nil || token != want {
		t.Errorf("got %q, %v, want %q", token, err, want)
	}
	if n := len(s.arrived); n != 0 {
		t.Errorf("%d more logins", n)
	}
}

// A token is replaced while it can still be used: etcd's JSON web tokens expire.
func TestTokenIsRefreshed(t *testing.T) {
	p, s := authPool(t)
	clock := newClock()
	p.cfg.Now = clock.now
	if token := answered(t, p, s, "t1"); token != "t1" {
		t.Errorf("got %q, want t1", token)
	}
	clock.advance(freshTerm - 1)
	wantToken(t, p, s, "t1")
	clock.advance(1)
	if token := answered(t, p, s, "t2"); token != "t2" {
		t.Errorf("after a minute: got %q, want t2", token)
	}
	wantToken(t, p, s, "t2")
}

// An old token serves on while a new one cannot be had, and a new one is asked for from time to time.
func TestOldTokenServesOn(t *testing.T) {
	for name, fail := range map[string]func(p *Pool, s *authServer){
		"unreachable": func(p *Pool, _ *authServer) {
			p.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errRefused }
		},
		"refused": func(_ *Pool, s *authServer) { s.refuse.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p, s := authPool(t)
			clock := newClock()
			p.cfg.Now = clock.now
			answered(t, p, s, "t1")
			dial := p.dial
			fail(p, s)
			clock.advance(freshTerm)
			if token, err := p.Token(t.Context()); err != nil || token != "t1" {
				t.Errorf("got %q, %v, want the old token", token, err)
			}
			p.dial = dial
			s.refuse.Store(false)
			wantToken(t, p, s, "t1")
			clock.advance(refusalTerm)
			if token := answered(t, p, s, "t2"); token != "t2" {
				t.Errorf("got %q, want t2", token)
			}
			p.Invalidate("t1") // somebody's who was slow
			wantToken(t, p, s, "t2")
		})
	}
}

// A cluster that cannot be reached is asked again at once.
func TestTokenAfterAnUnreachableCluster(t *testing.T) {
	p, s := authPool(t)
	plain := p.dial
	p.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errRefused }
	if _, err := p.Token(t.Context()); err == nil {
		t.Fatal("got a token from nobody")
	}
	p.dial = plain
	got := make(chan string, 1)
	go func() {
		token, err := p.Token(t.Context())
		if err != nil {
			t.Errorf("getting token: %v", err)
		}
		got <- token
	}()
	s.answer <- "t1"
	if token := <-got; token != "t1" {
		t.Errorf("got %q, want t1", token)
	}
}

// Close ends a login that hangs.
func TestCloseEndsLogin(t *testing.T) {
	p, s := authPool(t)
	ended := make(chan error, 1)
	go func() {
		_, err := p.Token(t.Context())
		ended <- err
	}()
	<-s.arrived
	if err := p.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("got a token after Close")
	}
}
