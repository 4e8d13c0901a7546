package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/bench/kube"
	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/turns"
)

func TestOptionsReportEverythingAtOnce(t *testing.T) {
	var stderr bytes.Buffer
	args := []string{"-only", "get,fly,get", "-targets", "direct,none", "-o", "xml", "-rounds", "0", "-watches", "9", "-secrets", "0", "-profile", "d", "-etcdseal", "e"}
	_, code, done := parseOptions(args, &stderr)
	if code != 2 || !done {
		t.Errorf("exit status %d, done %t, want 2, true", code, done)
	}
	for _, want := range []string{`"fly"`, `"get" is given twice`, `"none"`, `"xml"`, "-rounds", "-watches", "-secrets", "-profile"} {
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

func TestEarlier(t *testing.T) {
	o, _, done := parseOptions([]string{"-earlier", "old"}, io.Discard)
	if done || !slices.Contains(o.targets, rig.Earlier) || !slices.Contains(o.targets, rig.EarlierNoRule) {
		t.Errorf("-earlier: done %t, targets %v", done, o.targets)
	}
	var stderr strings.Builder
	if _, code, _ := parseOptions([]string{"-targets", rig.Earlier}, &stderr); code != 2 || !strings.Contains(stderr.String(), "needs -earlier") {
		t.Errorf("without -earlier: %d, %q", code, stderr.String())
	}
}

// TestStepsCoverEveryPart keeps a part from being an option without effect.
func TestStepsCoverEveryPart(t *testing.T) {
	have := map[string]bool{}
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

// TestInterrupted has a run end before it has begun: it must say so and leave nothing.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	code := run(ctx, []string{"-etcd", "/bin/sleep", "-targets", "direct", "-only", "get", "-dir", dir}, io.Discard, &stderr)
	if code != 2 || stderr.Len() == 0 {
		t.Errorf("exit status %d with %q, want 2 and a reason", code, stderr.String())
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%d files are left (%v)", len(left), err)
	}
}
