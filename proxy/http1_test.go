package proxy_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestNotHTTP2 talks to the port without HTTP/2's preface. An answer is not taken
// back though the client says more than is read.
func TestNotHTTP2(t *testing.T) {
	l := newLab(t, setup{})
	for name, c := range map[string]struct {
		said, want string
	}{
		"HTTP/1.1":          {"GET /none HTTP/1.1\r\nHost: a\r\n\r\n" + strings.Repeat("x", 64<<10), "HTTP/1.1 404 Not Found\r\n"},
		"HTTP/1.0":          {"POST / HTTP/1.0\r\n\r\n", "HTTP/1.0 404 Not Found\r\n"},
		"P":                 {"PUT /v3/kv/put HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 "},
		"almost a preface":  {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", ""},
		"something else":    {"INVALID CONNECTION PREFACE\r\n\r\n", ""},
		"a line and no end": {strings.Repeat("GET ", 2<<10), ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", l.address)
			must(t, err)
			defer conn.Close()
			must(t, conn.SetDeadline(time.Now().Add(boundedFor)))
			_, err = io.WriteString(conn, c.said)
			must(t, err)
			got, err := io.ReadAll(conn)
			if err != nil || c.want == "" && len(got) > 0 || !strings.HasPrefix(string(got), c.want) {
				t.Errorf("got %q (%v), want %q and the end", got, err, c.want)
			}
		})
	}
}
