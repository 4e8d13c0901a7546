// Command bench measures etcdseal side by side with a direct etcd, a bare TCP copy and etcd's own grpc-proxy.
//
// It builds and starts everything it needs on loopback addresses, in a directory that it removes, and takes no input. Targets take turns in short
// rounds, in changing order, and ratios are taken within a round, so that a machine that gets slower or faster in between does not count.
//
//	go run ./bench                                    everything
//	go run ./bench -quick                             what matters most
//	go run ./bench -only get,put -rounds 20           two kinds of calls, more rounds
//	go run ./bench -out DIR                           the report with plots, as files
//	go run ./bench -only get -earlier FILE            and another etcdseal in the same rounds, to see what a change has done
//	go run ./bench -only get -profile DIR             and profiles of etcdseal
//	go run ./bench render -out DIR FILE.json...       such files from the reports of one or more runs
//
// A run that fails, is interrupted or has no time left reports what it has measured until then.
//
// Exit status: 0 when every figure that was measured is within its limit, 1 when one is not, 2 when the benchmark could not run to its end.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/etcdseal/etcdseal/bench/tcpcopy"
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
	if len(args) > 0 && args[0] == "render" {
		return runRender(args[1:], stdout, stderr)
	}
	opts, code, done := parseOptions(args, stderr)
	if done {
		return code
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opts.timeout, fmt.Errorf("the time for everything, %v, is over; give more with -timeout or measure less with -only", opts.timeout))
	defer cancel()
	rep, err := measure(ctx, opts, stderr)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return conclude(rep, err, opts, stdout, stderr)
}

// runTCPCopy is `bench tcpcopy LISTEN TARGET`, a process of its own so that its processor time can be told from the benchmark's.
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
	if err := tcpcopy.Serve(ctx, l, args[1], nil); err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	return 0
}
