package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/bench/kube"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/turns"
)

func TestOptionsReportEverythingAtOnce(t *testing.T) {
	var stderr bytes.Buffer
	args := []string{
		"-only", "get,fly,get", "-targets", "direct,none", "-o", "xml", "-rounds", "0", "-watches", "9", "-rotated", "19", "-steady", "2m", "-secrets", "0", "-profile", "d", "-etcdseal", "e",
		"-etcd", t.TempDir(), "-kube-apiserver", "bench_test.go",
	}
	_, code, done := parseOptions(args, &stderr)
	if code != 2 || !done {
		t.Errorf("exit status %d, done %t, want 2, true", code, done)
	}
	for _, want := range []string{`"fly"`, `"get" is given twice`, `"none"`, `"xml"`, "-rounds: 0 is too small; the least is 1", "-watches: 9 is too small; the least is 10",
		"-rotated: 19 is too small; the least is 20", "-steady: 2m0s is too small; the least is 2m5s", "-secrets", "-profile", "-etcdseal: e must", "-etcd: /", "-kube-apiserver: bench_test.go must"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%s is not reported in:\n%s", want, stderr.String())
		}
	}
}

func TestOptions(t *testing.T) {
	if o, _, done := parseOptions([]string{"-targets", "direct,tcpcopy"}, io.Discard); done || o.needsSeal() {
		t.Errorf("done %t, needs etcdseal %t without an etcdseal target", done, o.needsSeal())
	}
	if o, _, done := parseOptions(nil, io.Discard); done || len(o.parts) != len(allParts()) || !o.needsSeal() || o.build.Profile {
		t.Errorf("without arguments: done %t, %+v", done, o)
	}
	o, _, done := parseOptions([]string{"-quick", "-rounds", "9", "-profile", "d"}, io.Discard)
	if done || o.rounds != 9 || o.duration != 250*time.Millisecond || o.measures(partFanout) || o.measures(partKube) || !o.measures(partWatches) || !o.build.Profile {
		t.Errorf("-quick -rounds 9: done %t, %+v", done, o)
	}
}

// A program is found wherever it is started from later.
func TestProgramsAreAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("etcd", []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	o, _, done := parseOptions([]string{"-etcd", "./etcd", "-etcdseal", "etcd"}, io.Discard)
	if done || !filepath.IsAbs(o.build.Etcd) || !filepath.IsAbs(o.build.Etcdseal) {
		t.Errorf("done %t, programs %q, %q, want absolute paths", done, o.build.Etcd, o.build.Etcdseal)
	}
}

// What would do nothing is an error.
func TestOptionsHaveAnEffect(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // in the error; empty for none
	}{
		{"-only watches", ""},
		{"-only watches -targets direct", "reading -only: nothing would be measured: watches"},
		{"-only watches,get -targets direct", ""},
		{"-only get -profile d", ""},
		{"-only watches -profile d", "reading -profile"},
		{"-only get -targets direct -profile d", "reading -profile"},
		{"-only get -targets etcdseal-earlier -earlier /bin/sh -profile d", "reading -profile"},
		{"-only storm -earlier /bin/sh", ""},
		{"-only start -earlier /bin/sh", "reading -earlier"},
	} {
		var stderr strings.Builder
		if _, _, done := parseOptions(strings.Fields(c.args), &stderr); done != (c.want != "") || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: done %t, %q, want %q", c.args, done, stderr.String(), c.want)
		}
	}
}

func TestEarlier(t *testing.T) {
	for _, c := range []struct {
		targets string
		want    []string
	}{
		{"direct,etcdseal,etcdseal-norule", []string{rig.Direct, rig.Sealing, rig.Earlier, rig.NoRule, rig.EarlierNoRule}},
		{"etcdseal,etcdseal-earlier", []string{rig.Sealing, rig.Earlier}},
		{"etcdseal-earlier-norule,direct", []string{rig.EarlierNoRule, rig.Direct}},
	} {
		o, _, done := parseOptions([]string{"-earlier", "/bin/sh", "-targets", c.targets}, io.Discard)
		if diff := cmp.Diff(c.want, o.targets); done || diff != "" {
			t.Errorf("-earlier -targets %s: done %t, targets (-want +got):\n%s", c.targets, done, diff)
		}
	}
	var stderr strings.Builder
	if _, code, _ := parseOptions([]string{"-targets", rig.Earlier}, &stderr); code != 2 || !strings.Contains(stderr.String(), "needs -earlier") {
		t.Errorf("without -earlier: %d, %q", code, stderr.String())
	}
}

// TestStepsCoverEveryPart keeps a part from being an option without effect.
func TestStepsCoverEveryPart(t *testing.T) {
	have := map[string]bool{}
	parts := allParts()
	for _, part := range sealParts {
		if !slices.Contains(parts, part) {
			t.Errorf("%s is no part", part)
		}
	}
	for _, s := range steps(t.Context(), nil, options{}, profiles{}, &report.Report{}, io.Discard) {
		for _, part := range s.parts {
			have[part] = true
		}
	}
	for _, part := range allParts() {
		if !have[part] {
			t.Errorf("nothing measures %s", part)
		}
	}
}

func TestRender(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, rep *report.Report) string {
		var b bytes.Buffer
		if err := rep.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := &report.Report{}, &report.Report{}
	one.Add("get", rig.TCPCopy, report.Single(turns.MetricOverDirect, "", 0.9))
	one.AddFigure("good", 1, "", report.AtMost, 2)
	two.Add("put", rig.Sealing, report.Single(turns.MetricOverDirect, "", 0.8))
	two.Add("kube get", kube.SideSeal, report.Single(kube.MetricOverAlone, "", 0.7))
	first, second := write("1.json", one), write("2.json", two)
	out := filepath.Join(dir, "out")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"render", "-out", out, first, second}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "GOOD") && !strings.Contains(stdout.String(), "good") {
		t.Fatalf("exit status %d, want 0, and the figure in:\n%s%s", code, stdout.String(), stderr.String())
	}
	document, err := os.ReadFile(filepath.Join(out, documentFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"(plots/throughput.svg)", "(plots/kube-throughput.svg)", "**with KMS v2**", "| etcdseal | 0.80 |", "| good | 1 | at most 2 | met |"} {
		if !strings.Contains(string(document), want) {
			t.Errorf("document does not hold %q:\n%s", want, document)
		}
	}
	svg, err := os.ReadFile(filepath.Join(out, "plots", "throughput.svg"))
	if err != nil || !bytes.Contains(svg, []byte("put")) {
		t.Errorf("plot does not show both reports (%v)", err)
	}
	if _, err := readReports([]string{filepath.Join(out, reportFile)}); err != nil {
		t.Errorf("the written report is not read: %v", err)
	}
	two.AddFigure("bad", 3, "", report.AtMost, 2)
	if code := run(t.Context(), []string{"render", write("2.json", two)}, io.Discard, io.Discard); code != 1 {
		t.Errorf("exit status %d with a figure that is missed, want 1", code)
	}
	for _, args := range [][]string{{"render"}, {"render", "-o", "xml", first}, {"render", filepath.Join(dir, "none")}} {
		if code := run(t.Context(), args, io.Discard, io.Discard); code != 2 {
			t.Errorf("%q: exit status %d, want 2", args, code)
		}
	}
}
