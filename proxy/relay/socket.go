package relay

import (
	"io"
	"net"
	"os"
	"syscall"
)

// socket reads from a TCP or unix socket into a buffer that it borrows only once there
// is something to read: one that waits costs none, however busy it was before, unless it
// waits for the rest of a frame (reader.fill). It takes
// no more system calls than Read of the connection, which also tries before it waits.
type socket struct {
	conn     net.Conn
	raw      syscall.RawConn
	borrowed *[socketBuffer]byte
	attempt  func(fd uintptr) bool // try, bound once
	got      int                   // of the last attempt
	err      error
}

// newSocket returns nil for what is not a socket, as with TLS.
func newSocket(src io.Reader) *socket {
	var raw syscall.RawConn
	var err error
	switch c := src.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil { // it is closed, and Read says so
		return nil
	}
	s := &socket{conn: src.(net.Conn), raw: raw}
	s.attempt = s.try
	return s
}

// read waits for bytes and returns the buffer that the first got of them are in. It is
// valid until the next call.
func (s *socket) read() (buf []byte, got int, err error) {
	s.release()
	if err := s.raw.Read(s.attempt); err != nil {
		return nil, 0, err
	}
	if s.borrowed == nil {
		return nil, 0, s.err
	}
	return s.borrowed[:], s.got, nil
}

// try reads what is there, and reports whether that ends the wait.
func (s *socket) try(fd uintptr) bool {
	b := socketBuffers.Get().(*[socketBuffer]byte)
	for {
		s.got, s.err = syscall.Read(int(fd), b[:])
		if s.err != syscall.EINTR {
			break
		}
	}
	if s.got > 0 {
		s.borrowed = b
		return true
	}
	socketBuffers.Put(b)
	switch s.err {
	case syscall.EAGAIN:
		return false
	case nil:
		s.err = io.EOF
	default:
		local, peer := s.conn.LocalAddr(), s.conn.RemoteAddr() // as Read of the connection says it
		s.err = &net.OpError{Op: "read", Net: local.Network(), Source: local, Addr: peer, Err: os.NewSyscallError("read", s.err)}
	}
	return true
}

// release gives the buffer back.
func (s *socket) release() {
	if s.borrowed != nil {
		socketBuffers.Put(s.borrowed)
		s.borrowed = nil
	}
}
