package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// fakeEtcd is a program that knows its version and otherwise only runs, which it says by writing its process id to a file.
func fakeEtcd(t *testing.T) (path, running string) {
	t.Helper()
	dir := t.TempDir()
	path, running = filepath.Join(dir, "etcd"), filepath.Join(dir, "running")
	script := "#!/bin/sh\ncase $1 in --version) echo 'etcd Version: 3.0.0'; exit;; esac\necho $$ >" + running + ".partial && mv " + running + ".partial " + running + "\nexec sleep 3600\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, running
}

// TestInterrupted has a run end while it waits for etcd: it must say so and leave nothing.
func TestInterrupted(t *testing.T) {
	etcd, running := fakeEtcd(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	var pid, scratch int
	watched := make(chan struct{})
	go func() { // ends the run once etcd runs
		defer close(watched)
		defer cancel(errors.New("a signal"))
		p := profiles{filepath.Dir(running)}
		if err := p.await(t.Context(), filepath.Base(running)); err != nil {
			t.Error(err)
			return
		}
		data, err := os.ReadFile(running)
		if err != nil {
			t.Error(err)
			return
		}
		pid, _ = strconv.Atoi(strings.TrimSpace(string(data)))
		entries, _ := os.ReadDir(dir)
		scratch = len(entries)
	}()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"-etcd", etcd, "-targets", "direct", "-only", "get", "-dir", dir}, &stdout, &stderr)
	<-watched
	if code != 2 || !strings.Contains(stderr.String(), "bench: a signal: ") || stdout.Len() > 0 {
		t.Errorf("exit status %d with %q and %q, want 2, a reason and no report", code, stderr.String(), stdout.String())
	}
	if pid == 0 || scratch == 0 {
		t.Errorf("etcd had the process id %d and there were %d scratch directories, want some of both before the end", pid, scratch)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("looking for etcd's process afterwards: %v, want none", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%d files are left (%v)", len(left), err)
	}
}

// Who runs out of time is told what to do.
func TestTimeLimit(t *testing.T) {
	etcd, _ := fakeEtcd(t)
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"-etcd", etcd, "-targets", "direct", "-only", "get", "-dir", t.TempDir(), "-timeout", "1ms"}, io.Discard, &stderr)
	if code != 2 || !strings.Contains(stderr.String(), "the time for everything, 1ms, is over; give more with -timeout or measure less with -only") {
		t.Errorf("exit status %d with %q, want 2 and what to do", code, stderr.String())
	}
}

// A measurement that fails does not take those before it along.
func TestTake(t *testing.T) {
	var made []string
	one := func(part string, err error) step {
		return step{parts: []string{part}, measure: func() error {
			made = append(made, part)
			return err
		}}
	}
	all := []step{one("get", nil), one("put", nil), one(partWire, errors.New("broken")), one(partStorm, nil)}
	err := take(all, options{parts: []string{"put", partWire, partStorm}, targets: []string{rig.Direct}})
	if err == nil || err.Error() != "measuring wire: broken" {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff([]string{"put", partWire}, made); diff != "" {
		t.Errorf("measured (-want +got):\n%s", diff)
	}
}

func TestReason(t *testing.T) {
	over, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the time is over"))
	for _, c := range []struct {
		ctx  context.Context
		err  string
		want string
	}{
		{t.Context(), "measuring get: running etcd: ended; its last output:\nsecret", "measuring get: running etcd: ended; its last output:"},
		{t.Context(), "measuring get: opening /tmp/scratch/kek.key: none", "measuring get: opening kek.key: none"},
		{over, "measuring get: taking turn: context canceled", "measuring get: the time is over"},
	} {
		if got := reason(c.ctx, errors.New(c.err), "/tmp/scratch"); got != c.want {
			t.Errorf("reason of %q is %q, want %q", c.err, got, c.want)
		}
	}
}

// What was measured before an error is delivered with it, and the exit status is neither that of success nor that of a figure which is missed.
func TestConclude(t *testing.T) {
	for _, c := range []struct {
		name   string
		figure float64 // of at most 2; 0 for no report
		err    error
		want   int
	}{
		{"all is well", 1, nil, 0}, {"missed", 3, nil, 1}, {"ended early", 1, errors.New("the reason"), 2}, {"ended early and missed", 3, errors.New("the reason"), 2},
		{"nothing was measured", 0, errors.New("the reason"), 2},
	} {
		out := filepath.Join(t.TempDir(), "out")
		var rep *report.Report
		if c.figure > 0 {
			rep = &report.Report{}
			rep.AddFigure("a figure", c.figure, "", report.AtMost, 2)
		}
		var stdout, stderr bytes.Buffer
		if code := conclude(rep, c.err, options{output: "table", out: out}, &stdout, &stderr); code != c.want {
			t.Errorf("%s: exit status %d, want %d", c.name, code, c.want)
		}
		if got := strings.Contains(stderr.String(), "the reason"); got != (c.err != nil) {
			t.Errorf("%s: standard error is %q", c.name, stderr.String())
		}
		if got := strings.Contains(stdout.String(), "a figure"); got != (rep != nil) {
			t.Errorf("%s: standard output is %q", c.name, stdout.String())
		}
		if _, err := os.Stat(filepath.Join(out, reportFile)); (err == nil) != (rep != nil) {
			t.Errorf("%s: looking for the report's file: %v", c.name, err)
		}
	}
}

// Only plots go: whatever else lies in the directory is not the benchmark's.
func TestRemovePlots(t *testing.T) {
	dir := t.TempDir()
	if err := removePlots(dir); err != nil {
		t.Errorf("without plots: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, plotsDir, "d.svg"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.svg", plotsDir + "/b.svg", plotsDir + "/c.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rep := &report.Report{}
	rep.AddFigure("a figure", 1, "", report.AtMost, 2)
	if code := conclude(rep, nil, options{output: "table", out: dir}, io.Discard, io.Discard); code != 0 {
		t.Errorf("exit status %d", code)
	}
	var got []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, _ fs.DirEntry, err error) error {
		got = append(got, path)
		return err
	})
	want := []string{".", documentFile, "a.svg", reportFile, plotsDir, plotsDir + "/c.txt", plotsDir + "/d.svg"}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v; left are (-want +got):\n%s", err, diff)
	}
}
