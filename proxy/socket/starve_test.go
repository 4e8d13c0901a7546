//go:build linux && !race

package socket

import (
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestBusyReaderStarvesNobody has a goroutine that always finds something to read, on the only
// processor, while another one's socket becomes ready. Before, everything has been idle,
// so that Go's watching thread sleeps: without a call that it is told of, it does so until a
// timer or a garbage collection wakes it, and the other goroutine waits.
func TestBusyReaderStarvesNobody(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	busy, feed := pair(t, "tcp", "127.0.0.1:0")
	feeder := New(feed).(*Conn)
	waiting, waker := pair(t, "tcp", "127.0.0.1:0")
	start, starter := pair(t, "tcp", "127.0.0.1:0")

	var ran atomic.Bool
	go func() {
		_, _ = waiting.Read(make([]byte, 1))
		ran.Store(true)
	}()
	idle(t, start, starter)
	b := make([]byte, 1)
	if _, err := New(waker).Write(b); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); !ran.Load(); {
		if _, err := feeder.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := busy.Read(b); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("the other goroutine has not run")
		}
	}
}

// idle waits for a byte that another process sends after a second: a timer of this one's would
// wake its watching thread.
func idle(t *testing.T, c *Conn, peer net.Conn) {
	t.Helper()
	f, err := peer.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // not now: it would be a system call that is told of
	sh := exec.Command("sh", "-c", "sleep 1; echo")
	sh.Stdout = f
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sh.Wait() })
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(fmt.Errorf("waiting for the other process: %w", err))
	}
}
