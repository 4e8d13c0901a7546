package proxy

import (
	"bytes"
	"net"
	"time"
)

const (
	// http1Time is how long a client that does not speak HTTP/2 may take to show that
	// it speaks HTTP/1.
	http1Time = time.Second
	// http1Line is the longest first line that is looked at.
	http1Line = 8 << 10
)

// readHTTP1 reads the first line of what a client says, or more. It returns all that
// was read, and whether that line is one of an HTTP/1 request. got is what was read of
// it before. A client that speaks neither HTTP/1 nor HTTP/2 is not answered (RFC 9113,
// 3.4).
func readHTTP1(conn net.Conn, got []byte) (read []byte, ok bool) {
	_ = conn.SetReadDeadline(time.Now().Add(http1Time))
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
