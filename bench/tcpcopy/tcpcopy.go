// Package tcpcopy copies the bytes of TCP connections and does nothing else: the floor for any proxy in user space, and, with counters, a place at
// which to see how many bytes go by.
package tcpcopy

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// bufferSize is that of one read: what io.Copy uses.
const bufferSize = 32 << 10

// Counts are the bytes that were copied.
type Counts struct {
	Up   atomic.Int64 // from clients to the target
	Down atomic.Int64
}

// Serve copies both ways between each accepted connection and a new one to the target until ctx ends, closes every connection and waits for their
// goroutines. It makes one read and one write for whatever arrived, in a plain loop; splice(2), which would keep the bytes in the kernel, is avoided
// on purpose. Nil counts nothing.
func Serve(ctx context.Context, l net.Listener, target string, counts *Counts) error {
	ctx, cancel := context.WithCancel(ctx)
	var pairs sync.WaitGroup
	defer pairs.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		client, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting connection: %w", err)
		}
		pairs.Go(func() { copyPair(ctx, client, target, counts) })
	}
}

// copyPair copies until either side ends or ctx does, then closes both.
func copyPair(ctx context.Context, client net.Conn, target string, counts *Counts) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return // the client sees its connection closed
	}
	closeBoth := sync.OnceFunc(func() {
		client.Close()
		server.Close()
	})
	defer closeBoth()
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var up, down *atomic.Int64
	if counts != nil {
		up, down = &counts.Up, &counts.Down
	}
	var other sync.WaitGroup
	other.Go(func() {
		copyLoop(server, client, up)
		closeBoth()
	})
	copyLoop(client, server, down)
	closeBoth()
	other.Wait()
}

func copyLoop(to, from net.Conn, count *atomic.Int64) {
	buf := make([]byte, bufferSize)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if count != nil {
				count.Add(int64(n))
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
