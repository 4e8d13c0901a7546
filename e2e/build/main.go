// Command build builds the programs that the end-to-end tests run, all of them or
// those that are named, so that a long first build (kube-apiserver takes minutes)
// does not count against the tests' time limit. The tests build by themselves what
// is missing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/etcdseal/etcdseal/e2e/binaries"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	names := os.Args[1:]
	for _, name := range names {
		if !slices.Contains(binaries.All(), name) {
			fmt.Fprintf(os.Stderr, "build: there is no program %q; there are %s\n", name, strings.Join(binaries.All(), ", "))
			os.Exit(2)
		}
	}
	if len(names) == 0 {
		names = binaries.All()
	}
	if _, err := binaries.Build(ctx, os.Stdout, names...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
