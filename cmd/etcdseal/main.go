// Command etcdseal seals the values of chosen etcd keys between etcd's clients
// and etcd. Run it without arguments for its verbs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := harden(os.Getenv("GODEBUG")); err != nil {
		fmt.Fprintf(os.Stderr, "etcdseal: %v\n", err)
		os.Exit(exitUnable)
	}
	profile()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the next signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
