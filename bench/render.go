package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/etcdseal/etcdseal/bench/kube"
	"github.com/etcdseal/etcdseal/bench/plot"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/turns"
)

// comparisons are the plots with bars. Targets keep their colours from plot to plot.
func comparisons() []plot.Comparison {
	return []plot.Comparison{
		{Name: "throughput", Title: "Throughput over direct etcd, as many calls as possible", Y: "times direct", Metric: turns.MetricOverDirect, Targets: plain, Line: 1},
		{Name: "processor", Title: "Processor time per call over a TCP copy's", Y: "times the TCP copy", Metric: turns.MetricOverCopy, Targets: plain, Line: 1},
		{Name: "throughput-tls", Title: "Throughput over direct etcd, all with TLS", Y: "times direct", Metric: turns.MetricOverDirect, Targets: secured, Line: 1},
	}
}

// plain and secured are targets in the order of their colours.
var (
	plain   = []string{rig.Direct, rig.TCPCopy, rig.NoRule, rig.Sealing, rig.GRPCProxy, rig.EarlierNoRule, rig.Earlier}
	secured = []string{rig.DirectTLS, rig.TCPCopyTLS, "", rig.SealingTLS, "", "", rig.EarlierTLS}
)

// The files of a report.
const (
	reportFile   = "benchmarks.json"
	documentFile = "BENCHMARKS.md"
	plotsDir     = "plots"
)

// runRender is `bench render`.
func runRender(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench render", flag.ContinueOnError)
	flags.SetOutput(stderr)
	out := flags.String("out", "", "directory to write the report to, with plots")
	output := flags.String("o", "table", "output: table or json")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil && (flags.NArg() == 0 || *output != "table" && *output != "json") {
		fmt.Fprintln(stderr, "usage: bench render [-out DIR] [-o table|json] FILE.json...")
		return 2
	}
	if err != nil {
		return 2
	}
	rep, err := readReports(flags.Args())
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	return deliver(rep, *output, *out, stdout, stderr)
}

// readReports merges the reports of several runs on one machine.
func readReports(paths []string) (*report.Report, error) {
	var merged *report.Report
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading report: %w", err)
		}
		rep, err := report.Read(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if merged == nil {
			merged = rep
			continue
		}
		merged.Merge(rep)
	}
	return merged, nil
}

// deliver prints the report, writes its files when there is a directory for them, and says whether every figure is met.
func deliver(rep *report.Report, output, out string, stdout, stderr io.Writer) int {
	write := rep.WriteTable
	if output == "json" {
		write = rep.WriteJSON
	}
	err := write(stdout)
	if out != "" {
		err = errors.Join(err, writeFiles(rep, out))
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: writing report: %v\n", err)
		return 2
	}
	if !rep.Met() {
		return 1
	}
	return 0
}

// writeFiles writes the document, its plots and the JSON that both are made of.
func writeFiles(rep *report.Report, dir string) error {
	plots, err := plot.Of(rep, comparisons(), plain)
	if err != nil {
		return err
	}
	ofKube, err := plot.Of(rep, kubeComparisons(), kube.Sides)
	if err != nil {
		return err
	}
	if err := removePlots(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, plotsDir), 0o755); err != nil {
		return err
	}
	document := bytes.NewBufferString(preface)
	if len(ofKube) > 0 {
		document.WriteString(kubePreface)
	}
	for _, p := range append(plots, ofKube...) {
		name := filepath.Join(plotsDir, p.Name+".svg")
		if err := os.WriteFile(filepath.Join(dir, name), p.SVG, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(document, "![%s](%s)\n\n", p.Title, filepath.ToSlash(name))
	}
	document.WriteString("## Tables\n\n")
	if err := rep.WriteMarkdown(document); err != nil {
		return err
	}
	var data bytes.Buffer
	if err := rep.WriteJSON(&data); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, documentFile), document.Bytes(), 0o644), os.WriteFile(filepath.Join(dir, reportFile), data.Bytes(), 0o644))
}

// preface explains the document.
const preface = `# Benchmarks

This page and its plots were written by ` + "`make bench`" + ` from one machine's measurements; [PERFORMANCE.md](PERFORMANCE.md) says where the time goes.
What is compared, each between the same client and the same etcd:

- **direct**: nothing in between.
- **tcpcopy**: a process that copies the bytes, the floor for any proxy in user space.
- **etcdseal-norule**: etcdseal, keys under no rule. **etcdseal**: the same process, values sealed and opened.
- **grpcproxy**: ` + "`etcd grpc-proxy`" + `, which does not seal.
- **-tls**: client certificates on every leg. tcpcopy-tls copies what is encrypted, etcdseal-tls ends TLS on both sides. They are compared with each other.
- **-earlier**, if it is there: another binary of etcdseal.

How it is measured:

- *Saturated*: a fixed number of calls in flight, each replaced when it is answered. Client, proxy and etcd share the machine's processors.
- *At half load*: calls begin at fixed moments, whatever became of earlier ones. A latency counts from the moment at which the call was to begin, so that a stall is not hidden by
  calls that were not made meanwhile (no coordinated omission). How late the client itself was is in the tables. The rate is an eighth of what direct etcd reaches when
  saturated, or a quarter of what the slowest target does, whichever is less: a call that comes alone takes three to five times the processor time of one among many, so that this
  is what keeps some half of two processors busy. The client collects its garbage between turns, not in them; so it does for the fan-out.
- *CPU/call* is the processor time of the process in between, by the kernel's clock of that process, divided by the calls; *etcd CPU/call* that of etcd.
- *peak RSS* is the most memory resident at once in a turn, by the kernel's mark.
- *On the wire*: the client counts what its sockets send and receive, a counting copy in front of etcd what goes by there. TCP's and IP's headers are not in it.
- *txn*: creations, updates and deletions, a third each, in kube-apiserver's shapes. *mixed*: 60 % reads, 33 % such transactions, 7 % lists of 50; a tenth of the objects are
  secrets under the rule. Lists are pages of 500, at the revision of the first.
- *watch fan-out*: a put every 200 ms, each received by every watch; from the moment at which the put was to begin.
- *Figures* are the goals. Of what was measured in rounds the median counts; the range behind it has the median of all possible rounds in it with a probability of nine tenths
  (for fewer than five rounds it is that of the rounds). A goal inside of that range is *not settled*: another run may tell otherwise.

`
