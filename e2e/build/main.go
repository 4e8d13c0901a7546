// Command build builds every program that the end-to-end tests run, so that a
// long first build (kube-apiserver takes minutes) does not count against the
// tests' time limit. The tests build by themselves what is missing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/etcdseal/etcdseal/e2e/binaries"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := binaries.Build(ctx, os.Stdout, binaries.All()...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
