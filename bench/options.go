package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The names of what can be measured, in the order of the report.
const (
	partGet     = "get"
	partPut     = "put"
	partList    = "list"
	partWatches = "watches"
	partPairs   = "pairs"
	partStart   = "start"
	partCold    = "coldstart"
	partRotate  = "rotation"
	partSteady  = "steady"
)

// The names of what can stand between the client and etcd.
const (
	targetDirect    = "direct"
	targetTCPCopy   = "tcpcopy"
	targetSeal      = "etcdseal"
	targetNoRule    = "etcdseal-norule"
	targetTLS       = "etcdseal-tls"
	targetGRPCProxy = "grpcproxy"
)

var (
	allParts       = []string{partGet, partPut, partList, partWatches, partPairs, partStart, partCold, partRotate, partSteady}
	allTargets     = []string{targetDirect, targetTCPCopy, targetSeal, targetNoRule, targetTLS, targetGRPCProxy}
	defaultTargets = []string{targetDirect, targetTCPCopy, targetSeal, targetNoRule, targetTLS}
)

// options are the command line.
type options struct {
	parts, targets []string
	rounds         int
	duration       time.Duration // of one target's turn
	output         string        // table or json
	watches        int           // watch streams, on watchConns connections
	pairs          int           // idle connections, beyond those of the baseline
	starts         int           // times that etcdseal is started
	cold, rotated  int           // values of a cold start and of a rotation
	steady         time.Duration // how long key operations are counted when nothing happens to keys
	etcd, etcdseal string        // ready binaries; empty means that they are built
	bin            string        // where binaries are built
	dir            string        // parent of the scratch directory; empty means the system's
}

func (o options) measures(part string) bool { return slices.Contains(o.parts, part) }

// needsSeal says whether any part of the run starts etcdseal.
func (o options) needsSeal() bool {
	return slices.ContainsFunc(o.targets, func(t string) bool { return strings.HasPrefix(t, targetSeal) })
}

// parseOptions reads the command line; done says that the command ends here with the given exit status.
func parseOptions(args []string, stderr io.Writer) (o options, code int, done bool) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", strings.Join(allParts, ","), "what to measure, separated by commas")
	targets := flags.String("targets", strings.Join(defaultTargets, ","), "what to put in front of etcd; also known: "+targetGRPCProxy)
	flags.IntVar(&o.rounds, "rounds", 10, "rounds that count, after one that does not")
	flags.DurationVar(&o.duration, "duration", 500*time.Millisecond, "length of one target's turn in a round")
	flags.StringVar(&o.output, "o", "table", "output: table or json")
	flags.IntVar(&o.watches, "watches", 10_000, "idle watch streams")
	flags.IntVar(&o.pairs, "pairs", 200, "idle connection pairs")
	flags.IntVar(&o.starts, "starts", 7, "times that etcdseal is started")
	flags.IntVar(&o.cold, "cold", 100_000, "values under 10 DEKs that are listed after a start")
	flags.IntVar(&o.rotated, "rotated", 1_000_000, "values under 20 DEKs that are rotated")
	flags.DurationVar(&o.steady, "steady", 150*time.Second, "how long key operations are counted when nothing happens to keys")
	flags.StringVar(&o.etcd, "etcd", "", "etcd binary to use instead of building the module's version")
	flags.StringVar(&o.etcdseal, "etcdseal", "", "etcdseal binary to use instead of building the checkout's")
	flags.StringVar(&o.bin, "bin", "bin/bench", "where to build the binaries; what is up to date there is not built again")
	flags.StringVar(&o.dir, "dir", "", "where to make the scratch directory that holds etcd's data")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return o, 0, true
	}
	if err != nil {
		return o, 2, true
	}
	o.parts, o.targets = strings.Split(*only, ","), strings.Split(*targets, ",")
	if err := o.validate(flags.Args()); err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return o, 2, true
	}
	return o, 0, false
}

// validate reports everything that is wrong with the command line at once.
func (o options) validate(rest []string) error {
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("reading arguments: %q is not expected", rest))
	}
	errs = append(errs, known("-only", o.parts, allParts), known("-targets", o.targets, allTargets))
	if o.output != "table" && o.output != "json" {
		errs = append(errs, fmt.Errorf("reading -o: %q is neither table nor json", o.output))
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"-rounds", o.rounds}, {"-duration", int(o.duration)}, {"-watches", o.watches / watchConns}, {"-pairs", o.pairs}, {"-starts", o.starts}, {"-cold", o.cold / coldDEKs}, {"-rotated", o.rotated / rotatedDEKs},
		{"-steady", int(o.steady / steadyLeast)}} {
		if n.value <= 0 {
			errs = append(errs, fmt.Errorf("reading %s: too small", n.flag))
		}
	}
	return errors.Join(errs...)
}

func known(flag string, names, of []string) error {
	var errs []error
	for _, n := range names {
		if !slices.Contains(of, n) {
			errs = append(errs, fmt.Errorf("reading %s: %q is not one of %s", flag, n, strings.Join(of, ", ")))
		}
	}
	return errors.Join(errs...)
}
