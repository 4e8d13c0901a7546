package relay

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/etcdseal/etcdseal/proxy/socket"
)

// sockets returns both ends of a connection.
func sockets(tb testing.TB) (a, b net.Conn) {
	tb.Helper()
	ln := listen(tb)
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close(); b.Close() })
	return socket.New(a), socket.New(b)
}

// TestReaderOnASocket reads frames of all sizes that arrive in pieces.
func TestReaderOnASocket(t *testing.T) {
	a, b := sockets(t)
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
	if rd.buf != nil {
		t.Error("a buffer is left")
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
