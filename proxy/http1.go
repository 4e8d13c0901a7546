package proxy

import (
	"bytes"
	"io"
	"net"
	"time"
)

const (
	// http1Time bounds all that is done for a client that does not speak HTTP/2.
	http1Time = time.Second
	// http1Line is the longest first line that is looked at.
	http1Line = 8 << 10
)

// answerHTTP1 answers a client that speaks HTTP/1. got is what was read of its
// request. One that speaks neither is not answered (RFC 9113, 3.4).
func answerHTTP1(conn net.Conn, got []byte) {
	_ = conn.SetDeadline(time.Now().Add(http1Time))
	if _, ok := readHTTP1(conn, got); !ok {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+notGRPC); err != nil {
		return
	}
	// A socket that is closed with bytes unread would take the answer back.
	if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// readHTTP1 reads the first line of what a client says, or more. It returns all that
// was read, and whether that line is one of an HTTP/1 request.
func readHTTP1(conn net.Conn, got []byte) (read []byte, ok bool) {
	line := make([]byte, http1Line)
	n := copy(line, got)
	for bytes.IndexByte(line[:n], '\n') < 0 {
		more, err := conn.Read(line[n:])
		if n += more; err != nil || n == len(line) {
			break
		}
	}
	first, _, _ := bytes.Cut(line[:n], []byte("\n"))
	words := bytes.Fields(first)
	return line[:n], len(words) == 3 && bytes.HasPrefix(words[2], []byte("HTTP/1."))
}
