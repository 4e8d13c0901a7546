package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// sockets returns both ends of a connection.
func sockets(t *testing.T, network, address string) (a, b net.Conn) {
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestSocket(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		t.Run(network, func(t *testing.T) {
			a, b := sockets(t, network, address)
			s := newSocket(b)
			if _, err := a.Write([]byte("xy")); err != nil {
				t.Fatal(err)
			}
			if buf, got, err := s.read(); got != 2 || err != nil || string(buf[:2]) != "xy" || len(buf) != socketBuffer {
				t.Fatalf("read: %d bytes of %d, %v", got, len(buf), err)
			}
			s.release()
			if err := s.raw.Read(func(fd uintptr) bool {
				if s.try(fd) || s.borrowed != nil {
					t.Errorf("without bytes there: holds a buffer: %t, %v", s.borrowed != nil, s.err)
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if err := b.SetReadDeadline(time.Now()); err != nil {
				t.Fatal(err)
			}
			var timeout net.Error
			if _, _, err := s.read(); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("past the deadline: %v", err)
			}
			if err := b.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			a.Close()
			if _, got, err := s.read(); got != 0 || err != io.EOF {
				t.Errorf("at the end: %d bytes, %v", got, err)
			}
			b.Close()
			if _, _, err := s.read(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed: %v", err)
			}
			if s.borrowed != nil {
				t.Error("a buffer is left")
			}
		})
	}
}

// TestReaderOnASocket reads frames of all sizes that arrive in pieces.
func TestReaderOnASocket(t *testing.T) {
	a, b := sockets(t, "tcp", "127.0.0.1:0")
	var sent []byte
	sizes := []int{0, 1, 100, idleBuffer, maxFramePayload, 0, maxFramePayload - 1}
	for range 20 {
		for i, n := range sizes {
			sent = appendFrameHeader(sent, n, http2.FrameData, 0, uint32(i+1))
			sent = append(sent, bytes.Repeat([]byte{byte(i)}, n)...)
		}
	}
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%70_000)
			if _, err := a.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		a.Close()
	}()
	rd := newReader(b)
	defer rd.release()
	if rd.socket == nil {
		t.Fatal("it is not read as a socket")
	}
	for k := range 20 * len(sizes) {
		i := k % len(sizes)
		f, err := rd.next()
		if err != nil || f.id != uint32(i+1) || !bytes.Equal(f.payload, bytes.Repeat([]byte{byte(i)}, sizes[i])) {
			t.Fatalf("frame %d: %d bytes of stream %d, %v", k, len(f.payload), f.id, err)
		}
	}
	if _, err := rd.next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if rd.socket.borrowed != nil || rd.buf != nil {
		t.Error("a buffer is left")
	}
}

// TestSocketReset compares the error with the one that Read of the connection gives.
func TestSocketReset(t *testing.T) {
	read := map[string]func(net.Conn) error{
		"socket":     func(c net.Conn) error { _, _, err := newSocket(c).read(); return err },
		"connection": func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
	}
	for name, of := range read {
		a, b := sockets(t, "tcp", "127.0.0.1:0")
		if err := a.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		a.Close()
		want := fmt.Sprintf("read tcp %s->%s: read: connection reset by peer", b.LocalAddr(), b.RemoteAddr())
		if err := of(b); err == nil || err.Error() != want || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// TestBusyWithoutASocket reads what is no socket: a read that fills the small buffer
// has the next one use a large one, until enough of them are small.
func TestBusyWithoutASocket(t *testing.T) {
	frames := func(n, size int) (b []byte) {
		for range n {
			b = append(appendFrameHeader(b, size, http2.FrameData, 0, 1), make([]byte, size)...)
		}
		return b
	}
	src := &reads{}
	rd := newReader(src)
	next := func(b []byte, n int) {
		t.Helper()
		src.left = append(src.left, b)
		for range n {
			if _, err := rd.next(); err != nil {
				t.Fatal(err)
			}
		}
	}
	next(frames(1, 100), 1)
	if rd.record != nil {
		t.Error("one small frame has it borrow")
	}
	many := frames(40, 100)
	next(many[:idleBuffer], idleBuffer/109)
	next(many[idleBuffer:], 40-idleBuffer/109)
	if rd.record == nil {
		t.Error("a read that filled the small buffer has it borrow nothing")
	}
	for range quietReads + 1 {
		next(frames(1, 100), 1)
	}
	if rd.record != nil {
		t.Error("it keeps what it borrowed when it is quiet")
	}
	next(frames(1, maxFramePayload), 1)
	if rd.record == nil {
		t.Error("a large frame has it borrow nothing")
	}
	rd.release()
	if rd.record != nil {
		t.Error("release leaves the buffer")
	}
}

// reads gives out one piece of memory after the other.
type reads struct{ left [][]byte }

func (r *reads) Read(b []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.left[0])
	if r.left[0] = r.left[0][n:]; len(r.left[0]) == 0 {
		r.left = r.left[1:]
	}
	return n, nil
}
