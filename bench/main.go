// Command bench measures etcdseal side by side with a direct etcd, a bare TCP copy and, on request, etcd's own grpc-proxy.
//
// It builds and starts everything it needs on loopback addresses, in a directory that it removes, and takes no input. Targets take turns in short
// rounds, in changing order, and ratios are taken within a round, so that a machine that gets slower or faster in between does not count.
//
//	go run ./bench                                  everything
//	go run ./bench -only get,put -rounds 20         two kinds of calls, more rounds
//	go run ./bench -targets direct,tcpcopy,grpcproxy  without etcdseal
//	go run ./bench -o json
//
// Exit status: 0 when every figure that was measured is within its limit, 1 when one is not, 2 when the benchmark could not run.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "tcpcopy" {
		return runTCPCopy(ctx, args[1:], stderr)
	}
	opts, code, done := parseOptions(args, stderr)
	if done {
		return code
	}
	report, err := measure(ctx, opts, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	if err := report.write(stdout, opts.output); err != nil {
		fmt.Fprintf(stderr, "bench: writing report: %v\n", err)
		return 2
	}
	if !report.met() {
		return 1
	}
	return 0
}
