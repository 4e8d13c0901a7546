package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// ErrNotHTTP2 says that a client does not speak HTTP/2.
var ErrNotHTTP2 = errors.New("relay: the client does not begin with HTTP/2's preface")

// Client is a client's connection of which the preface has been read.
type Client struct {
	conn net.Conn
	rd   *reader
}

// ReadPreface reads the bytes that an HTTP/2 client begins with. With
// ErrNotHTTP2 it returns what it has read instead, so that another protocol
// can be answered.
func ReadPreface(conn net.Conn, timeout time.Duration) (*Client, []byte, error) {
	_ = conn.SetReadDeadline(time.Now().Add(timeout))
	got := make([]byte, 0, len(http2.ClientPreface))
	for len(got) < len(http2.ClientPreface) {
		n, err := conn.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if !bytes.HasPrefix([]byte(http2.ClientPreface), got) {
			return nil, got, ErrNotHTTP2
		}
		if err != nil {
			if err == io.EOF && len(got) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, got, err
		}
	}
	_ = conn.SetReadDeadline(time.Time{})
	return &Client{conn: conn, rd: newReader(conn)}, nil, nil
}
