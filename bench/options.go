package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/bench/idle"
	"github.com/etcdseal/etcdseal/bench/keys"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/workload"
)

// The names of what can be measured beside the workloads.
const (
	partWire    = "wire"
	partFanout  = "fanout"
	partStorm   = "storm"
	partWatches = "watches"
	partPairs   = "pairs"
	partStart   = "start"
	partCold    = "coldstart"
	partRotate  = "rotation"
	partSteady  = "steady"

	partKube     = "kube"
	partKubeCold = "kube-coldstart"
)

// allParts are everything that can be measured, in the order of the report.
func allParts() []string {
	var parts []string
	for _, w := range workload.All {
		parts = append(parts, w.Short)
	}
	return append(parts, partWire, partFanout, partStorm, partWatches, partPairs, partStart, partCold, partRotate, partSteady, partKube, partKubeCold)
}

// What -quick changes, unless it is said otherwise.
var quick = map[string]string{
	"only": "get,put,txn,list,watches,start", "targets": "direct,tcpcopy,etcdseal-norule,etcdseal", "rounds": "5", "duration": "250ms", "rate-duration": "400ms",
}

// options are the command line.
type options struct {
	parts, targets []string
	rounds         int
	duration       time.Duration // of one target's turn
	rateDuration   time.Duration // of one target's turn at a fixed rate
	output         string        // table or json
	out            string        // directory of the report's files; empty means none
	profile        string        // directory of profiles; empty means none
	timeout        time.Duration // of everything
	fanout         int           // watches that get each event
	clients        int           // that connect at once
	watches        int           // idle watch streams
	pairs          int           // idle connections, beyond those of the baseline
	starts         int           // times that etcdseal is started
	cold, rotated  int           // values of a cold start and of a rotation
	steady         time.Duration // how long key operations are counted when nothing happens to keys
	secrets        int           // of a cold start of kube-apiserver
	kubeStarts     int           // times that each kube-apiserver is started on them
	apiServer      string        // a ready kube-apiserver; empty means that it is built
	dir            string        // parent of the scratch directory; empty means the system's
	build          rig.Build
}

func (o options) measures(part string) bool { return slices.Contains(o.parts, part) }

// needsSeal says whether any part of the run starts etcdseal.
func (o options) needsSeal() bool { return slices.ContainsFunc(o.targets, rig.IsSeal) }

// flags declares the command line; only and targets are lists.
func (o *options) flags(stderr io.Writer) (flags *flag.FlagSet, only, targets *string, short *bool) {
	flags = flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only = flags.String("only", strings.Join(allParts(), ","), "what to measure, separated by commas")
	targets = flags.String("targets", strings.Join(rig.TargetNames, ","), "what to put in front of etcd, separated by commas")
	short = flags.Bool("quick", false, "less of it, in about a minute")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds that count, after one that does not")
	flags.DurationVar(&o.duration, "duration", 300*time.Millisecond, "length of one target's turn in a round")
	flags.DurationVar(&o.rateDuration, "rate-duration", 500*time.Millisecond, "the same at a fixed rate; 0 measures no latencies")
	flags.StringVar(&o.output, "o", "table", "output: table or json")
	flags.StringVar(&o.out, "out", "", "directory to write the report to, with plots")
	flags.StringVar(&o.profile, "profile", "", "directory to write CPU and heap profiles of etcdseal to, for each workload")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Minute, "the time for everything, after which the benchmark gives up")
	flags.IntVar(&o.fanout, "fanout", 1000, "watches that get each event")
	flags.IntVar(&o.clients, "clients", 500, "clients that connect at once")
	flags.IntVar(&o.watches, "watches", 10_000, "idle watch streams")
	flags.IntVar(&o.pairs, "pairs", 200, "idle connection pairs")
	flags.IntVar(&o.starts, "starts", 7, "times that etcdseal is started")
	flags.IntVar(&o.cold, "cold", 100_000, "values under 10 DEKs that are listed after a start")
	flags.IntVar(&o.rotated, "rotated", 1_000_000, "values under 20 DEKs that are rotated")
	flags.DurationVar(&o.steady, "steady", 150*time.Second, "how long key operations are counted when nothing happens to keys")
	flags.IntVar(&o.secrets, "secrets", 50_000, "secrets that are there when a kube-apiserver is started")
	flags.IntVar(&o.kubeStarts, "kube-starts", 3, "times that each kube-apiserver is started on them")
	flags.StringVar(&o.apiServer, "kube-apiserver", "", "kube-apiserver binary to use instead of building the end-to-end tests' version")
	flags.StringVar(&o.build.Etcd, "etcd", "", "etcd binary to use instead of building the module's version")
	flags.StringVar(&o.build.Etcdseal, "etcdseal", "", "etcdseal binary to use instead of building the checkout's")
	flags.StringVar(&o.build.Earlier, "earlier", "", "another etcdseal binary, which is measured in the same rounds as "+strings.Join(rig.EarlierNames, " and "))
	flags.StringVar(&o.build.Dir, "bin", "bin/bench", "where to build the binaries; what is up to date there is not built again")
	flags.StringVar(&o.dir, "dir", "", "where to make the scratch directory that holds etcd's data")
	return flags, only, targets, short
}

// parseOptions reads the command line; done says that the command ends here with the given exit status.
func parseOptions(args []string, stderr io.Writer) (o options, code int, done bool) {
	flags, only, targets, short := o.flags(stderr)
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return o, 0, true
	}
	if err != nil {
		return o, 2, true
	}
	if *short {
		given := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range quick {
			if given[name] {
				continue
			}
			if err := flags.Set(name, value); err != nil {
				panic(err) // of a constant
			}
		}
	}
	o.parts, o.targets = strings.Split(*only, ","), strings.Split(*targets, ",")
	if o.build.Earlier != "" {
		o.targets = append(o.targets, rig.EarlierNames...)
	}
	o.build.Seal, o.build.Profile = o.needsSeal(), o.profile != ""
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
	errs = append(errs, known("-only", o.parts, allParts()), known("-targets", o.targets, slices.Concat(rig.TargetNames, rig.EarlierNames)))
	if o.build.Earlier == "" && slices.ContainsFunc(o.targets, func(name string) bool { return slices.Contains(rig.EarlierNames, name) }) {
		errs = append(errs, errors.New("reading -targets: a target that is an earlier etcdseal needs -earlier"))
	}
	if o.output != "table" && o.output != "json" {
		errs = append(errs, fmt.Errorf("reading -o: %q is neither table nor json", o.output))
	}
	if o.profile != "" && o.build.Etcdseal != "" {
		errs = append(errs, errors.New("reading -profile: a released etcdseal writes no profiles; leave -etcdseal out, so that one that does is built"))
	}
	for _, n := range []struct {
		flag  string
		value int
	}{
		{"-rounds", o.rounds}, {"-duration", int(o.duration)}, {"-timeout", int(o.timeout)}, {"-fanout", o.fanout}, {"-clients", o.clients},
		{"-watches", o.watches / idle.WatchConnections}, {"-pairs", o.pairs}, {"-starts", o.starts}, {"-cold", o.cold / keys.ColdDEKs},
		{"-rotated", o.rotated / keys.RotatedDEKs}, {"-steady", int(o.steady / keys.SteadyLeast)}, {"-secrets", o.secrets}, {"-kube-starts", o.kubeStarts},
	} {
		if n.value <= 0 {
			errs = append(errs, fmt.Errorf("reading %s: too small", n.flag))
		}
	}
	if o.rateDuration < 0 {
		errs = append(errs, errors.New("reading -rate-duration: negative"))
	}
	return errors.Join(errs...)
}

func known(flag string, names, of []string) error {
	var errs []error
	for i, n := range names {
		if !slices.Contains(of, n) {
			errs = append(errs, fmt.Errorf("reading %s: %q is not one of %s", flag, n, strings.Join(of, ", ")))
		}
		if slices.Contains(names[:i], n) {
			errs = append(errs, fmt.Errorf("reading %s: %q is given twice", flag, n))
		}
	}
	return errors.Join(errs...)
}
