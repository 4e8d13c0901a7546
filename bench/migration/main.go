// Command migration measures what it costs to seal what is in etcd already: how fast `etcdseal encrypt` is beside a bare client that rewrites the
// same values in transactions of the same size, how much memory it takes, how fast `etcdseal verify --data-dir` reads, and what clients notice of it.
//
// It builds and starts everything it needs on loopback addresses, in a directory that it removes, and takes no input.
//
//	go run ./bench/migration                 everything
//	go run ./bench/migration -only rate      one part of it
//
// Exit status: 0 when every figure that was measured is within its limit, 1 when one is not, 2 when the benchmark could not run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the command line.
type options struct {
	only           string
	values         int           // of a rate and of the latency
	keys           int           // of the memory
	rounds         int           // of a rate and of the latency
	window         time.Duration // of one turn of the latency
	puts           int           // a second, of the latency's client
	etcd, etcdseal string        // ready binaries; empty means that they are built
	bin, dir       string
}

// part is one thing that can be measured.
type part struct {
	name    string
	measure func(context.Context, *rig, options) ([]figure, error)
}

var parts = []part{{"rate", measureRate}, {"memory", measureMemory}, {"latency", measureLatency}}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "migration: %v\n", err)
		return 2
	}
	bin, err := prepare(ctx, o, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "migration: %v\n", err)
		return 2
	}
	met := true
	for _, p := range parts {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), p.name) {
			continue
		}
		figures, err := bin.with(ctx, o, p.measure)
		for _, f := range figures {
			fmt.Fprintln(stdout, f)
			met = met && f.met()
		}
		if err != nil {
			fmt.Fprintf(stderr, "migration: measuring %s: %v\n", p.name, err)
			return 2
		}
	}
	if !met {
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("migration", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.only, "only", "", "what to measure, separated by commas: rate, memory (and verify after it), latency; empty is all")
	flags.IntVar(&o.values, "values", 100_000, "values of 1 KiB that are sealed")
	flags.IntVar(&o.keys, "keys", 1_000_000, "values of 1 KiB that are sealed to see how much memory that takes")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds, in each of which everything that is compared has a turn")
	flags.DurationVar(&o.window, "window", 30*time.Second, "length of a turn of the client whose latency is measured")
	flags.IntVar(&o.puts, "puts", 200, "that client's puts a second")
	flags.StringVar(&o.etcd, "etcd", "", "etcd binary to use instead of building the module's version")
	flags.StringVar(&o.etcdseal, "etcdseal", "", "etcdseal binary to use instead of building the checkout's")
	flags.StringVar(&o.bin, "bin", "bin/bench", "where to build the binaries; what is up to date there is not built again")
	flags.StringVar(&o.dir, "dir", "", "where to make the scratch directory that holds etcd's data")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for _, name := range strings.Split(o.only, ",") {
		if o.only != "" && !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return o, fmt.Errorf("reading -only: there is no part %q", name)
		}
	}
	if flags.NArg() > 0 || o.values < batch || o.keys < batch || o.rounds < 1 || o.window < time.Second || o.puts < 1 {
		return o, errors.New("reading arguments: one is not expected, or too small")
	}
	return o, nil
}

// figure is a number that was measured.
type figure struct {
	what  string
	value float64
	unit  string
	limit float64 // 0 is none
	least bool    // whether the limit is the smallest that is good, or the largest
}

func (f figure) met() bool {
	return f.limit == 0 || f.least && f.value >= f.limit || !f.least && f.value <= f.limit
}

func (f figure) String() string {
	text := fmt.Sprintf("%-60s %12.2f %s", f.what, f.value, f.unit)
	if f.limit == 0 {
		return text
	}
	side, verdict := "at most", "met"
	if f.least {
		side = "at least"
	}
	if !f.met() {
		verdict = "NOT MET"
	}
	return fmt.Sprintf("%s (%s %g: %s)", text, side, f.limit, verdict)
}

// median returns the middle of some numbers.
func median(of []float64) float64 {
	s := slices.Sorted(slices.Values(of))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
