// Package socket reads from and writes to TCP and unix sockets by system calls of which
// Go's scheduler is not told.
//
// What net.Conn does tells it of each one, in case it takes long: that wakes the thread
// that watches the others (sysmon), has it look every 20 us as long as it finds system
// calls that take longer than that, as large writes do, and has another thread woken to go
// on in place of this one. A relay does little else than such calls, and saves much of its
// processor time without (docs/PERFORMANCE.md). They need none of it, since they do not wait
// for the peer: the longest takes as long as copying untoldBytes through the kernel does, or
// as another such call on the same socket.
//
// Two things are lost. A goroutine cannot be stopped while it is in a call, which bounding them
// makes short. And if the scheduler is told of no call at all, the watching thread may sleep
// while the others are busy, until the next garbage collection or timer: then nobody stops a
// goroutine that computes for long, or sees to those whose sockets have become ready while
// one that always finds something to read keeps a processor. So with one read in tellEvery comes
// a call that it is told of and that takes no time.
package socket

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

const (
	// BufferSize is the size of what Borrow returns.
	BufferSize = 128 << 10
	// tellEvery is how many reads of a socket come to one call that the scheduler is told of.
	tellEvery = 64
	// untoldBytes is how much is written by one call.
	untoldBytes = 256 << 10
)

var buffers = sync.Pool{New: func() any { return new([BufferSize]byte) }}

// Conn is a connection over a TCP or unix socket. Like any net.Conn it may be used by several
// goroutines at once.
type Conn struct {
	net.Conn
	raw syscall.RawConn
	in  input
	out output
}

// input is what goes on in the one call that reads.
type input struct {
	mu           sync.Mutex
	read, borrow func(fd uintptr) bool // the attempts, bound once
	into         []byte                // where Read wants what comes
	borrowed     *[BufferSize]byte
	reads        uint32
	got          int
	err          error
}

// output is the same for the one that writes.
type output struct {
	mu      sync.Mutex
	write   func(fd uintptr) bool
	left    []byte   // of what Write writes
	parts   [][]byte // or of what WriteParts writes; the first piece is not empty
	written int
	err     error
}

// New returns c over a Conn, or c itself if it is no socket.
func New(c net.Conn) net.Conn {
	var raw syscall.RawConn
	var err error
	switch s := c.(type) {
	case *net.TCPConn:
		raw, err = s.SyscallConn()
	case *net.UnixConn:
		raw, err = s.SyscallConn()
	default:
		return c
	}
	if err != nil {
		return c // whatever is wrong with it, it says so by itself
	}
	conn := &Conn{Conn: c, raw: raw}
	conn.in.read, conn.in.borrow, conn.out.write = conn.tryRead, conn.tryBorrow, conn.tryWrite
	return conn
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	in.into = b
	defer func() { in.into = nil }()
	if err := c.raw.Read(in.read); err != nil {
		return 0, renamed("read", err)
	}
	return in.got, in.err
}

// Borrow waits for bytes and returns a buffer of BufferSize bytes of which it has read the
// first got. While there is nothing to read it holds no buffer. Whoever borrows gives back,
// and no two do at the same time.
func (c *Conn) Borrow() (buf []byte, got int, err error) {
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := c.raw.Read(in.borrow); err != nil {
		return nil, 0, renamed("read", err)
	}
	if in.borrowed == nil {
		return nil, 0, in.err
	}
	return in.borrowed[:], in.got, nil
}

// GiveBack ends the use of what Borrow has returned, if anything.
func (c *Conn) GiveBack() {
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.borrowed != nil {
		buffers.Put(in.borrowed)
		in.borrowed = nil
	}
}

// tryRead reads what is there, and reports whether that ends the wait.
func (c *Conn) tryRead(fd uintptr) bool { return c.attempt(fd, c.in.into) }

// tryBorrow is tryRead with a buffer that it keeps if it needs one.
func (c *Conn) tryBorrow(fd uintptr) bool {
	in := &c.in
	if in.borrowed == nil {
		in.borrowed = buffers.Get().(*[BufferSize]byte)
	}
	done := c.attempt(fd, in.borrowed[:])
	if in.got == 0 {
		buffers.Put(in.borrowed)
		in.borrowed = nil
	}
	return done
}

// attempt reads into b, and reports whether that ends the wait.
func (c *Conn) attempt(fd uintptr, b []byte) bool {
	in := &c.in
	if in.reads++; in.reads%tellEvery == 0 {
		tell()
	}
	n, err := read(fd, b)
	for err == syscall.EINTR {
		n, err = read(fd, b)
	}
	in.got, in.err = max(n, 0), nil
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		in.err = c.failed("read", err)
	case n == 0:
		in.err = io.EOF
	}
	return true
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	out := &c.out
	out.mu.Lock()
	defer out.mu.Unlock()
	out.left = b
	err := c.finish()
	return out.written, err
}

// WriteParts writes several pieces of memory one after the other, by as few calls as it can. It
// writes over parts: what they were afterwards is of no use.
func (c *Conn) WriteParts(parts [][]byte) error {
	out := &c.out
	out.mu.Lock()
	defer out.mu.Unlock()
	out.parts = parts
	out.took(0)
	return c.finish()
}

// finish writes what out has. Nothing of it is kept.
func (c *Conn) finish() error {
	out := &c.out
	out.written, out.err = 0, nil
	err := c.raw.Write(out.write)
	out.left, out.parts = nil, nil
	if err != nil {
		return renamed("write", err)
	}
	return out.err
}

// tryWrite writes what is left, and reports whether that ends the wait for room.
func (c *Conn) tryWrite(fd uintptr) bool {
	out := &c.out
	for {
		var n int
		var err error
		switch {
		case len(out.left) > 0:
			n, err = write(fd, out.left[:min(len(out.left), untoldBytes)])
		case len(out.parts) > 0:
			n, err = writeParts(fd, out.parts)
		default:
			return true
		}
		switch {
		case err == nil && n == 0: // it would go on for ever
			out.err = c.failed("write", io.ErrUnexpectedEOF)
			return true
		case err == nil:
			out.took(n)
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return false
		default:
			out.err = c.failed("write", err)
			return true
		}
	}
}

// took takes n bytes off what is to be written, and pieces in front that are empty.
func (out *output) took(n int) {
	out.written += n
	if len(out.left) > 0 {
		out.left = out.left[n:]
		return
	}
	for len(out.parts) > 0 && n >= len(out.parts[0]) {
		n -= len(out.parts[0])
		out.parts[0] = nil
		out.parts = out.parts[1:]
	}
	if n > 0 {
		out.parts[0] = out.parts[0][n:]
	}
}

// CloseWrite ends what the peer reads, and leaves the other direction as it is.
func (c *Conn) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// failed is an error as net.Conn has it.
func (c *Conn) failed(op string, err error) error {
	local, peer := c.LocalAddr(), c.RemoteAddr()
	return &net.OpError{Op: op, Net: local.Network(), Source: local, Addr: peer, Err: os.NewSyscallError(op, err)}
}

// renamed gives an error of a syscall.RawConn, such as that of a deadline, the name that net.Conn
// gives it.
func renamed(op string, err error) error {
	if of, ok := err.(*net.OpError); ok {
		named := *of
		named.Op = op
		return &named
	}
	return err
}
