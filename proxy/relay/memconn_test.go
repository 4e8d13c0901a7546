package relay

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memConn is a connection in memory that behaves as TCP does: it stores up to
// a limit, either way can be ended by itself, and when it is closed with bytes
// unread the other end loses what it has not read yet. It can be used in a
// bubble of synctest.
type memConn struct {
	in, out *memPipe
}

// newMemConns returns both ends, with room for limit bytes each way.
func newMemConns(limit int) (a, b *memConn) {
	ab, ba := newMemPipe(limit), newMemPipe(limit)
	return &memConn{in: ba, out: ab}, &memConn{in: ab, out: ba}
}

// memPipe is one way of it.
type memPipe struct {
	mu       sync.Mutex
	cond     sync.Cond
	buf      []byte
	limit    int
	eof      bool  // the writer has ended
	err      error // what the reader gets at once
	broken   error // what the writer gets
	deadline [2]time.Time
	timers   [2]*time.Timer
}

const (
	reading = 0
	writing = 1
)

func newMemPipe(limit int) *memPipe {
	p := &memPipe{limit: limit}
	p.cond.L = &p.mu
	return p
}

func (p *memPipe) late(way int) bool {
	return !p.deadline[way].IsZero() && !time.Now().Before(p.deadline[way])
}

func (p *memPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.late(reading):
			return 0, os.ErrDeadlineExceeded
		case len(p.buf) > 0:
			n := copy(b, p.buf)
			if p.buf = p.buf[n:]; len(p.buf) == 0 {
				p.buf = nil
			}
			p.cond.Broadcast()
			return n, nil
		case p.eof:
			return 0, io.EOF
		}
		p.cond.Wait()
	}
}

func (p *memPipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		switch {
		case p.broken != nil:
			return n, p.broken
		case p.eof:
			return n, net.ErrClosed
		case p.late(writing):
			return n, os.ErrDeadlineExceeded
		case len(p.buf) < p.limit:
			k := min(p.limit-len(p.buf), len(b))
			p.buf = append(p.buf, b[:k]...)
			b, n = b[k:], n+k
			p.cond.Broadcast()
		default:
			p.cond.Wait()
		}
	}
	return n, nil
}

func (p *memPipe) setDeadline(way int, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline[way] = t
	if p.timers[way] != nil {
		p.timers[way].Stop()
	}
	if !t.IsZero() {
		p.timers[way] = time.AfterFunc(time.Until(t), func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.cond.Broadcast()
		})
	}
	p.cond.Broadcast()
}

func (c *memConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *memConn) CloseWrite() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.eof = true
	c.out.cond.Broadcast()
	return nil
}

func (c *memConn) Close() error {
	c.in.mu.Lock()
	unread := len(c.in.buf) > 0
	c.in.err, c.in.broken, c.in.buf = net.ErrClosed, syscall.EPIPE, nil
	c.in.cond.Broadcast()
	c.in.mu.Unlock()
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.eof = true
	if unread && c.out.err == nil {
		c.out.buf, c.out.err = nil, syscall.ECONNRESET
	}
	c.out.cond.Broadcast()
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(reading, t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(writing, t)
	return nil
}

type memAddr struct{}

func (memAddr) Network() string        { return "mem" }
func (memAddr) String() string         { return "mem" }
func (c *memConn) LocalAddr() net.Addr { return memAddr{} }

// RemoteAddr implements net.Conn.
func (c *memConn) RemoteAddr() net.Addr { return memAddr{} }
