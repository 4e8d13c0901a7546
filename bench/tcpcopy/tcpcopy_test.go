package tcpcopy

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
)

func TestServe(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var counts Counts
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, echo.Addr().String(), &counts) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	go c.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("copied bytes differ from those sent (%v)", err)
	}
	if up, down := counts.Up.Load(), counts.Down.Load(); up != int64(len(sent)) || down != up {
		t.Errorf("%d bytes up and %d down were counted, want %d", up, down, len(sent))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := c.Read(got); err == nil {
		t.Error("connection is open after the copy ended")
	}
}
