// Command quickstart shows what etcdseal does, on this machine and without a trace:
// it starts an etcd inside itself, an etcdseal in front of it, writes a Kubernetes
// secret through it, and shows what a client reads beside the bytes that etcd
// holds. Then it stays up to be tried, or ends if ONCE is set.
//
// It is a development command of its own, so that etcdseal links no etcd server.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	// The kernel ends the child when the thread that started it ends: so that has
	// to be a thread which lives as long as the process.
	runtime.LockOSThread()
	binary := flag.String("etcdseal", "bin/etcdseal", "run the etcdseal in `FILE`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away must not keep us from cleaning up
	screen := &screen{out: os.Stdout, colored: isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == ""}
	if err := quickstart(ctx, *binary, os.Getenv("ONCE") != "", screen); err != nil {
		fmt.Fprintf(os.Stderr, "quickstart: %v\n", err)
		os.Exit(1)
	}
}
