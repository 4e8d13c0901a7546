package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
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

// sealParts are the parts that measure etcdseal alone, whatever else is a target: without an etcdseal among the targets they are left out.
var sealParts = []string{partWatches, partPairs, partStart, partCold, partRotate, partSteady, partKube, partKubeCold}

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

// measures says whether a part is asked for and there is something to measure.
func (o options) measures(part string) bool {
	return slices.Contains(o.parts, part) && (o.needsSeal() || !slices.Contains(sealParts, part))
}

// needsSeal says whether any part of the run starts etcdseal.
func (o options) needsSeal() bool { return slices.ContainsFunc(o.targets, rig.IsSeal) }

// flags declares the command line; only and targets are lists.
func (o *options) flags(stderr io.Writer) (flags *flag.FlagSet, only, targets *string, short *bool) {
	flags = flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only = flags.String("only", strings.Join(allParts(), ","), "what to measure, separated by commas")
	targets = flags.String("targets", strings.Join(rig.TargetNames, ","), "what to put in front of etcd, separated by commas")
	short = flags.Bool("quick", false, "only what matters most, in fewer and shorter turns")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds that count, after one that does not")
	flags.DurationVar(&o.duration, "duration", 300*time.Millisecond, "length of one target's turn in a round")
	flags.DurationVar(&o.rateDuration, "rate-duration", 500*time.Millisecond, "the same at a fixed rate; 0 measures no latencies")
	flags.StringVar(&o.output, "o", "table", "output: table or json")
	flags.StringVar(&o.out, "out", "", "directory to write the report to, with plots")
	flags.StringVar(&o.profile, "profile", "", "directory to write CPU and heap profiles of etcdseal to, for each workload")
	flags.DurationVar(&o.timeout, "timeout", 45*time.Minute, "the time for everything, building included, after which the benchmark reports what it has; all parts together are meant to take less than 30 minutes")
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
	flags.StringVar(&o.build.Earlier, "earlier", "", "another etcdseal binary, which is measured in the same rounds as "+strings.Join(rig.EarlierNames, ", ")+
		", or as those of them that -targets names. It takes part in the calls, wire, fanout and storm; the other parts are of the present one alone")
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
	if o.build.Earlier != "" && !slices.ContainsFunc(o.targets, rig.IsEarlier) {
		o.targets = rig.WithEarlier(o.targets)
	}
	o.build.Seal, o.build.Profile = o.needsSeal(), o.profile != ""
	if err := errors.Join(o.validate(flags.Args()), o.resolve()); err != nil {
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
	if o.build.Earlier == "" && slices.ContainsFunc(o.targets, rig.IsEarlier) {
		errs = append(errs, errors.New("reading -targets: a target that is an earlier etcdseal needs -earlier"))
	}
	if o.output != "table" && o.output != "json" {
		errs = append(errs, fmt.Errorf("reading -o: %q is neither table nor json", o.output))
	}
	if o.profile != "" && o.build.Etcdseal != "" {
		errs = append(errs, errors.New("reading -profile: a released etcdseal writes no profiles; leave -etcdseal out, so that one that does is built"))
	}
	errs = append(errs, atLeast("-rounds", o.rounds, 1), atLeast("-duration", o.duration, time.Millisecond), atLeast("-timeout", o.timeout, time.Millisecond),
		atLeast("-fanout", o.fanout, 1), atLeast("-clients", o.clients, 1), atLeast("-watches", o.watches, idle.WatchConnections), atLeast("-pairs", o.pairs, 1),
		atLeast("-starts", o.starts, 1), atLeast("-cold", o.cold, keys.ColdDEKs), atLeast("-rotated", o.rotated, keys.RotatedDEKs),
		atLeast("-steady", o.steady, keys.SteadyLeast), atLeast("-secrets", o.secrets, 1), atLeast("-kube-starts", o.kubeStarts, 1))
	if o.rateDuration < 0 {
		errs = append(errs, fmt.Errorf("reading -rate-duration: %v is negative; 0 measures no latencies", o.rateDuration))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return o.hasEffect()
}

// hasEffect reports what would be asked for in vain, of options that are right one by one.
func (o options) hasEffect() error {
	var errs []error
	if !slices.ContainsFunc(o.parts, o.measures) {
		errs = append(errs, fmt.Errorf("reading -only: nothing would be measured: %s are of etcdseal alone, which -targets does not name", strings.Join(o.parts, ", ")))
	}
	calls := func(w workload.Workload) bool { return o.measures(w.Short) }
	ofPresent := func(target string) bool { return rig.IsSeal(target) && !rig.IsEarlier(target) }
	if o.profile != "" && !(slices.ContainsFunc(workload.All, calls) && slices.ContainsFunc(o.targets, ofPresent)) {
		errs = append(errs, errors.New("reading -profile: there would be no profile: they are of calls through the present etcdseal; -only must name some, such as get, and -targets one, such as etcdseal"))
	}
	withEarlier := func(part string) bool { return o.measures(part) && !slices.Contains(sealParts, part) }
	if o.build.Earlier != "" && !slices.ContainsFunc(o.parts, withEarlier) {
		errs = append(errs, errors.New("reading -earlier: it takes part in the calls, wire, fanout and storm, of which -only names none"))
	}
	return errors.Join(errs...)
}

// resolve makes the paths of ready programs absolute, for some are started in other directories, and reports those that are none.
func (o *options) resolve() error {
	var errs []error
	for _, program := range []struct {
		flag string
		path *string
	}{{"-etcd", &o.build.Etcd}, {"-etcdseal", &o.build.Etcdseal}, {"-earlier", &o.build.Earlier}, {"-kube-apiserver", &o.apiServer}} {
		if *program.path == "" {
			continue
		}
		path, err := filepath.Abs(*program.path)
		if err == nil {
			_, err = exec.LookPath(path)
		}
		if cause := errors.Unwrap(err); cause != nil {
			err = cause // without the path, which is given already
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading %s: %s must be a program: %w", program.flag, *program.path, err))
			continue
		}
		*program.path = path
	}
	return errors.Join(errs...)
}

func atLeast[T cmp.Ordered](flag string, value, least T) error {
	if value >= least {
		return nil
	}
	return fmt.Errorf("reading %s: %v is too small; the least is %v", flag, value, least)
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
