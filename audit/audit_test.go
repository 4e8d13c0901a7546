package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/audit"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

var now = time.Date(2026, 11, 24, 4, 0, 0, 0, time.UTC)

// disk is an output that a test can fill.
type disk struct {
	bytes.Buffer
	room int // how many bytes the next write may have; negative: all
}

func (d *disk) Write(p []byte) (int, error) {
	if d.room >= 0 && d.room < len(p) {
		n, _ := d.Buffer.Write(p[:d.room])
		d.room = 0
		return n, syscall.ENOSPC
	}
	return d.Buffer.Write(p)
}

func newLog(t *testing.T, c audit.Config) *audit.Log {
	t.Helper()
	c.Now = func() time.Time { return now }
	l, err := audit.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// told is a KEK that fills in the whole trace, and has what was wrapped.
type told struct {
	*kektest.Fake
	dek []byte // the last one that was unwrapped
}

func (k *told) tell(ctx context.Context, id string) {
	*kek.TraceFrom(ctx) = kek.Trace{KeyID: "https://v/keys/k/" + id, Status: 200, RequestID: "theirs", ClientRequestID: "ours", Tries: 2}
}

func (k *told) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	k.tell(ctx, "1")
	return k.Fake.Wrap(ctx, dek)
}

func (k *told) Unwrap(ctx context.Context, w kek.Wrapping) (dek []byte, err error) {
	k.tell(ctx, w.Version)
	k.dek, err = k.Fake.Unwrap(ctx, w)
	return k.dek, err
}

// lines parses what was written and leaves the durations out.
func lines(t *testing.T, text string) (parsed []audit.Line) {
	t.Helper()
	for _, text := range strings.Split(strings.TrimSpace(text), "\n") {
		var line audit.Line
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		parsed = append(parsed, line)
	}
	return parsed
}

func TestLineOfACall(t *testing.T) {
	d := &disk{room: -1}
	fake := &told{Fake: kektest.NewFake("prod", "1")}
	k := newLog(t, audit.Config{Output: d}).KEK("prod", fake)
	var trace kek.Trace
	ctx := kek.WithTrace(kek.WithWhy(kek.WithDEK(t.Context(), "3f2a"), kek.WhyNewDEK), &trace)
	dek := bytes.Repeat([]byte{0xd5, 7}, kek.DEKSize/2)
	w, err := k.Wrap(ctx, dek)
	if err != nil {
		t.Fatal(err)
	}
	if trace.ClientRequestID != "ours" {
		t.Errorf("the caller's own trace is %+v", trace)
	}
	if _, err := k.Unwrap(kek.WithWhy(ctx, kek.WhyProof), w); err != nil {
		t.Fatal(err)
	}
	fake.Fail(kek.Disabled, kek.OpUnwrap)
	if _, err := k.Unwrap(t.Context(), w); kek.ClassOf(err) != kek.Disabled {
		t.Errorf("Unwrap: %v", err)
	}
	line := audit.Line{
		Time: now, Op: "wrap", Why: "new DEK", KEK: "prod", KeyID: "https://v/keys/k/1", DEK: "3f2a", Result: "ok",
		Status: 200, RequestID: "theirs", ClientRequestID: "ours", Tries: 2,
	}
	proof, denied := line, line
	proof.Op, proof.Why = "unwrap", "proof"
	denied.Op, denied.Why, denied.DEK, denied.Result = "unwrap", "", "", "disabled"
	if diff := cmp.Diff([]audit.Line{line, proof, denied}, lines(t, d.String())); diff != "" {
		t.Errorf("the lines differ (-want +got):\n%s", diff)
	}
	if text := d.String(); strings.Contains(text, string(dek)) || strings.Contains(text, string(w.Ciphertext)) {
		t.Error("a line has a secret")
	}
}

// TestKeyID names a key in the provider's terms from its first use on, and not for what the
// provider refused.
func TestKeyID(t *testing.T) {
	l := newLog(t, audit.Config{Output: &disk{room: -1}})
	fake := &told{Fake: kektest.NewFake("prod", "1")}
	k := l.KEK("prod", fake)
	want := func(when, version, want string) {
		t.Helper()
		if got := l.KeyID("prod", version); got != want {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	want("unknown", "1", "1")
	w, err := k.Wrap(t.Context(), make([]byte, kek.DEKSize))
	if err != nil {
		t.Fatal(err)
	}
	want("used", "1", "https://v/keys/k/1")
	w.Version = "2"
	if _, err := k.Unwrap(t.Context(), w); err == nil {
		t.Fatal("a wrapping by another version was unwrapped")
	}
	want("refused", "2", "2")
}

func TestConformance(t *testing.T) {
	kektest.Run(t, func(t *testing.T) kek.KEK {
		return newLog(t, audit.Config{Output: &disk{room: -1}}).KEK("prod", kektest.NewFake("prod", "1"))
	})
}

func TestDated(t *testing.T) {
	l := newLog(t, audit.Config{Output: &disk{room: -1}})
	fake := kektest.NewFake("prod", "1")
	if _, ok := l.KEK("prod", fake).(kek.Dated); !ok {
		t.Error("a Dated KEK is none any more")
	}
	if _, ok := l.KEK("prod", struct{ kek.KEK }{fake}).(kek.Dated); ok {
		t.Error("a KEK became Dated")
	}
}

// TestNothingWithoutItsLine has the disk fill up in the middle of a line: the result of
// that call is not used, the KEK is not asked again until there is room, and the next line
// stands by itself.
func TestNothingWithoutItsLine(t *testing.T) {
	d := &disk{room: -1}
	fake := &told{Fake: kektest.NewFake("prod", "1")}
	l := newLog(t, audit.Config{Output: d})
	k := l.KEK("prod", fake)
	w, err := k.Wrap(t.Context(), bytes.Repeat([]byte{7}, kek.DEKSize))
	if err != nil {
		t.Fatal(err)
	}
	d.room = 20
	if _, err := k.Unwrap(t.Context(), w); !errors.Is(err, audit.ErrUnwritten) || !errors.Is(err, syscall.ENOSPC) || kek.ClassOf(err) != kek.Unavailable {
		t.Errorf("Unwrap: got %v, want ErrUnwritten, unavailable", err)
	}
	if !bytes.Equal(fake.dek, make([]byte, kek.DEKSize)) {
		t.Error("the DEK was not wiped")
	}
	if err := l.Ready(t.Context()); !errors.Is(err, audit.ErrUnwritten) {
		t.Errorf("Ready: got %v, want ErrUnwritten", err)
	}
	if _, err := k.Unwrap(t.Context(), w); !errors.Is(err, audit.ErrUnwritten) || fake.Calls(kek.OpUnwrap) != 1 {
		t.Errorf("the second Unwrap: got %v, and %d calls, want ErrUnwritten and 1", err, fake.Calls(kek.OpUnwrap))
	}
	if _, err := k.Wrap(t.Context(), fake.dek); !errors.Is(err, audit.ErrUnwritten) || fake.Calls(kek.OpWrap) != 1 {
		t.Errorf("Wrap: got %v, and %d calls, want ErrUnwritten and 1", err, fake.Calls(kek.OpWrap))
	}
	before := d.Len()
	d.room = -1
	if err := l.Ready(t.Context()); err != nil {
		t.Errorf("Ready with room: %v", err)
	}
	if _, err := k.Unwrap(t.Context(), w); err != nil {
		t.Errorf("Unwrap with room: %v", err)
	}
	got := lines(t, d.String()[before:])
	if len(got) != 2 || got[0].Op != audit.OpResume || got[0].Lost != 1 || got[1].Op != kek.OpUnwrap || got[1].Lost != 0 {
		t.Errorf("got %+v, want a resume that says that one line was lost, and an unwrap", got)
	}
	if l.Lost() != 1 {
		t.Errorf("lost %d lines, want 1", l.Lost())
	}
}

func TestContinue(t *testing.T) {
	d := &disk{}
	l := newLog(t, audit.Config{Output: d, Continue: true})
	k := l.KEK("prod", kektest.NewFake("prod", "1"))
	if _, err := k.Wrap(t.Context(), make([]byte, kek.DEKSize)); err != nil {
		t.Errorf("Wrap: %v", err)
	}
	if err := l.Ready(t.Context()); err != nil || l.Lost() != 1 {
		t.Errorf("got %v and %d lost lines, want ready and 1", err, l.Lost())
	}
	d.room = -1
	if err := l.Write(audit.Line{Op: audit.OpDrop, Result: "ok"}); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, d.String()); len(got) != 1 || got[0].Lost != 1 {
		t.Errorf("got %+v, want one line that says that one was lost", got)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := newLog(t, audit.Config{File: path})
	write := func(op string) {
		t.Helper()
		if err := l.Write(audit.Line{Op: op, Result: "ok"}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) (ops []string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines(t, string(text)) {
			ops = append(ops, line.Op)
		}
		return ops
	}
	write("a")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has %v, %v, want mode 0600", info.Mode(), err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("b")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	write("c")
	if diff := cmp.Diff([][]string{{"a", "b"}, {"c"}}, [][]string{read(path + ".1"), read(path)}); diff != "" {
		t.Errorf("the files differ (-want +got):\n%s", diff)
	}
	second := newLog(t, audit.Config{File: path}) // appends
	if err := second.Write(audit.Line{Op: "d", Result: "ok"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c", "d"}, read(path)); diff != "" {
		t.Errorf("the file differs (-want +got):\n%s", diff)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Write(audit.Line{Op: "e", Result: "ok"}); !errors.Is(err, audit.ErrUnwritten) {
		t.Errorf("Write after Close: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o622); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		c    audit.Config
		want string
	}{
		{audit.Config{}, "either a file or an output"},
		{audit.Config{File: open}, "chmod 600"},
		{audit.Config{File: dir}, "not a regular file"},
		{audit.Config{File: pipe}, "not a regular file"},
		{audit.Config{File: filepath.Join(dir, "none", "x")}, "no such file"},
	} {
		if _, err := audit.Open(test.c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Open(%+v): got %v, want %q", test.c, err, test.want)
		}
	}
}
