package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
)

// A client that says nothing keeps its own handshake waiting, and nobody else.
func TestSilentClientDoesNotBlockOthers(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	l := open(t, tlsConfig(t, ca))
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := l.Handshake(ctx, conn)
		ended <- err
	}()
	if got := connect(t, l, clientConfig(t, ca, ca.Issue(t, certstest.Request{}))); got.err != nil {
		t.Errorf("connecting beside a silent client: %v", got.err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled handshake: got %v, want context.Canceled", err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent client's connection is still open")
	}
}

// A client that does not speak TLS is told by the end of its connection.
func TestFailedHandshakeClosesConnection(t *testing.T) {
	l := open(t, tlsConfig(t, certstest.NewCA(t, "ca")))
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Handshake(t.Context(), conn); err == nil {
		t.Fatal("a handshake without TLS succeeded")
	}
	_, _ = io.Copy(io.Discard, client) // hangs while the connection is open
}

func TestHandshakeTimeout(t *testing.T) {
	cfg := tlsConfig(t, certstest.NewCA(t, "ca"))
	cfg.HandshakeTimeout = time.Nanosecond
	l := open(t, cfg)
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Handshake(t.Context(), conn); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
}

// scripted is a net.Listener whose Accept returns what the test sends.
type scripted struct {
	net.Listener
	errs chan error
}

func (s *scripted) Accept() (net.Conn, error) { return nil, <-s.errs }

func TestAcceptWaitsOutWhatPasses(t *testing.T) {
	l := open(t, Config{Address: "127.0.0.1:0", Insecure: true})
	s := &scripted{Listener: l.net, errs: make(chan error, 3)}
	l.net = s
	fatal := errors.New("broken")
	s.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
	s.errs <- &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}
	s.errs <- fatal
	if _, err := l.Accept(); !errors.Is(err, fatal) {
		t.Errorf("got %v, want %v", err, fatal)
	}
}

func TestCloseEndsAccept(t *testing.T) {
	l := open(t, Config{Address: "127.0.0.1:0", Insecure: true})
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	var errs []error
	for range 2 {
		errs = append(errs, l.Close())
	}
	if diff := cmp.Diff([]error{nil, nil}, errs); diff != "" {
		t.Errorf("closing twice (-want +got):\n%s", diff)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}
