package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair returns both ends of a connection, the first of them as a Conn.
func pair(t *testing.T, network, address string) (*Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close(); conn.Close() })
	return New(conn).(*Conn), peer
}

// networks are the kinds of sockets, with an address to listen on.
func networks(t *testing.T) map[string]string {
	return map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")}
}

func TestNewOfNoSocket(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if New(a) != a {
		t.Error("a pipe was taken for a socket")
	}
}

// TestRead reads by both ways: what is there, past a deadline, at the end, and when closed.
func TestRead(t *testing.T) {
	ways := map[string]func(*Conn) (string, error){
		"Read": func(c *Conn) (string, error) {
			b := make([]byte, 10)
			n, err := c.Read(b)
			return string(b[:n]), err
		},
		"Borrow": func(c *Conn) (string, error) {
			b, n, err := c.Borrow()
			defer c.GiveBack()
			return string(b[:n]), err
		},
	}
	for way, read := range ways {
		for network, address := range networks(t) {
			t.Run(way+" "+network, func(t *testing.T) {
				c, peer := pair(t, network, address)
				if _, err := peer.Write([]byte("xy")); err != nil {
					t.Fatal(err)
				}
				if got, err := read(c); got != "xy" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				if err := c.SetReadDeadline(time.Now()); err != nil {
					t.Fatal(err)
				}
				var timeout net.Error
				if _, err := read(c); !errors.As(err, &timeout) || !timeout.Timeout() || !strings.HasPrefix(err.Error(), "read "+network) {
					t.Errorf("past the deadline: %v", err)
				}
				if err := c.SetReadDeadline(time.Time{}); err != nil {
					t.Fatal(err)
				}
				peer.Close()
				if got, err := read(c); got != "" || err != io.EOF {
					t.Errorf("at the end: %q, %v", got, err)
				}
				c.Close()
				if _, err := read(c); !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "read "+network) {
					t.Errorf("closed: %v", err)
				}
				if c.in.borrowed != nil || c.in.into != nil {
					t.Error("a buffer is left")
				}
			})
		}
	}
}

// TestWaitingHoldsNoBuffer looks at an attempt that finds nothing.
func TestWaitingHoldsNoBuffer(t *testing.T) {
	c, _ := pair(t, "tcp", "127.0.0.1:0")
	err := c.raw.Read(func(fd uintptr) bool {
		if c.tryBorrow(fd) || c.in.borrowed != nil {
			t.Errorf("without bytes there: holds a buffer: %t, %v", c.in.borrowed != nil, c.in.err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReset compares errors with those of a net.Conn.
func TestReset(t *testing.T) {
	fill := func(c net.Conn) (err error) {
		for b := make([]byte, 1<<20); err == nil; {
			_, err = c.Write(b)
		}
		return err
	}
	for name, tt := range map[string]struct {
		of   func(net.Conn) error
		want string
		is   error
	}{
		"read":  {func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }, "read tcp %s->%s: read: connection reset by peer", syscall.ECONNRESET},
		"write": {fill, "write tcp %s->%s: write: ", nil},
	} {
		for _, plain := range []bool{false, true} {
			c, peer := pair(t, "tcp", "127.0.0.1:0")
			if err := peer.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			peer.Close()
			of := net.Conn(c)
			if plain {
				of = c.Conn
			}
			err := tt.of(of)
			if want := fmt.Sprintf(tt.want, c.LocalAddr(), c.RemoteAddr()); err == nil || !strings.HasPrefix(err.Error(), want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%s, plain %t: %v, want %s", name, plain, err, want)
			}
		}
	}
}

// TestWrite writes more than a socket holds, in one piece and in more than one system call takes,
// while the peer reads.
func TestWrite(t *testing.T) {
	var whole []byte
	var parts [][]byte
	for i := range 2500 {
		size := i % 7 * 1000
		if i%1000 == 10 {
			size = 2*untoldBytes + 1
		}
		part := bytes.Repeat([]byte{byte(i)}, size)
		parts, whole = append(parts, part), append(whole, part...)
	}
	for network, address := range networks(t) {
		for _, inParts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s in parts %t", network, inParts), func(t *testing.T) {
				c, peer := pair(t, network, address)
				got := make(chan []byte, 1)
				go func() {
					b, err := io.ReadAll(peer)
					if err != nil {
						t.Errorf("the peer, reading: %v", err)
					}
					got <- b
				}()
				if inParts {
					if err := c.WriteParts(append([][]byte(nil), parts...)); err != nil {
						t.Error(err)
					}
				} else if n, err := c.Write(whole); n != len(whole) || err != nil {
					t.Errorf("wrote %d bytes of %d, %v", n, len(whole), err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
				if b := <-got; !bytes.Equal(b, whole) {
					t.Errorf("the peer got %d bytes, other ones than the %d that were written", len(b), len(whole))
				}
				if c.out.left != nil || c.out.parts != nil {
					t.Error("it keeps what was written")
				}
			})
		}
	}
}

// TestWriteDeadline fills a socket that nobody reads.
func TestWriteDeadline(t *testing.T) {
	c, peer := pair(t, "tcp", "127.0.0.1:0")
	written := make(chan int, 1)
	go func() {
		n, err := c.Write(make([]byte, 64<<20))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || !strings.HasPrefix(err.Error(), "write tcp") {
			t.Errorf("past the deadline: %v", err)
		}
		written <- n
	}()
	if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil { // it writes
		t.Fatal(err)
	}
	if err := c.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	n := <-written
	c.Close()
	rest, err := io.Copy(io.Discard, peer)
	if err != nil || n != int(rest)+1 {
		t.Errorf("Write said %d bytes, the peer got %d, %v", n, rest+1, err)
	}
}
