package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// copyBuffer is the size of one read of the bare TCP copy: what io.Copy uses.
const copyBuffer = 32 << 10

// runTCPCopy is `bench tcpcopy LISTEN TARGET`: it copies bytes both ways between each accepted connection and a new one to TARGET until ctx ends.
// It is the floor for any proxy in user space: one read and one write for whatever arrived, in a plain loop. splice(2), which would keep the
// bytes in the kernel, is avoided on purpose.
func runTCPCopy(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: bench tcpcopy LISTEN TARGET")
		return 2
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", args[0])
	if err != nil {
		fmt.Fprintf(stderr, "bench: listening: %v\n", err)
		return 2
	}
	if err := tcpCopy(ctx, l, args[1]); err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	return 0
}

// tcpCopy serves l until ctx ends, closes every connection and waits for their goroutines.
func tcpCopy(ctx context.Context, l net.Listener, target string) error {
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
		pairs.Go(func() { copyPair(ctx, client, target) })
	}
}

// copyPair copies until either side ends or ctx does, then closes both.
func copyPair(ctx context.Context, client net.Conn, target string) {
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
	var up sync.WaitGroup
	up.Go(func() {
		copyLoop(server, client)
		closeBoth()
	})
	copyLoop(client, server)
	closeBoth()
	up.Wait()
}

func copyLoop(to, from net.Conn) {
	buf := make([]byte, copyBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
