package wire

import (
	"io"
	"net"
	"testing"

	"github.com/etcdseal/etcdseal/bench/tcpcopy"
)

func TestConnCounts(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	var counts tcpcopy.Counts
	c := conn{client, &counts}
	go func() {
		io.ReadFull(server, make([]byte, 5))
		server.Write(make([]byte, 7))
	}()
	if _, err := c.Write(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if up, down := counts.Up.Load(), counts.Down.Load(); up != 5 || down != 7 {
		t.Errorf("%d bytes up and %d down, want 5 and 7", up, down)
	}
	if got, want := bytesOf(9, 8, 7, 6).since(bytesOf(1, 2, 3, 4)), bytesOf(8, 6, 4, 2); got != want {
		t.Errorf("difference is %v, want %v", got, want)
	}
}

func bytesOf(up, down, etcdUp, etcdDown int64) counts { return counts{up, down, etcdUp, etcdDown} }
