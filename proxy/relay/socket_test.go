package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
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
			if err := s.conn.Read(func(fd uintptr) bool {
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
}

// TestWriteBehindLoans puts frames before, between and behind payloads that are lent.
func TestWriteBehindLoans(t *testing.T) {
	a, b := sockets(t, "tcp", "127.0.0.1:0")
	o := &outgoing{}
	one, two := &buffer{b: bytes.Repeat([]byte{1}, leastLent)}, &buffer{b: bytes.Repeat([]byte{2}, leastLent)}
	o.b = append(o.b, "first"...)
	o.lend(one.b, one)
	o.lend(two.b, two)
	o.b = append(o.b, "last"...)
	want := append(append(append([]byte("first"), one.b...), two.b...), "last"...)
	if err := o.writeTo(a); err != nil {
		t.Fatal(err)
	}
	o.release()
	a.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, want %d", len(got), err, len(want))
	}
	if one.loans != 0 || two.loans != 0 {
		t.Errorf("not given back: %d, %d", one.loans, two.loans)
	}
}
