package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// buildEtcdseal builds the command that the show runs.
func buildEtcdseal(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "etcdseal")
	if output, err := exec.Command("go", "build", "-o", binary, "../etcdseal").CombinedOutput(); err != nil {
		t.Fatalf("building etcdseal: %v\n%s", err, output)
	}
	return binary
}

// emptyTemp makes the show keep its files where the test can look for them. The
// path is short, for sockets are in it.
func emptyTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	return dir
}

func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestQuickstartOnce(t *testing.T) {
	binary, temp := buildEtcdseal(t), emptyTemp(t)
	var out bytes.Buffer
	if err := quickstart(t.Context(), binary, true, &screen{out: &out}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"http://127.0.0.1:", secretKey, `{"kind":"Secret" │ 0020  `, " 00 65 73  ", "authentication tag", "ONCE is set"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the show has no %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("the show has colours without a terminal")
	}
	checkNothingLeft(t, temp)
}

// untilAdvice is a screen's writer that ends the show when the last line is there.
type untilAdvice struct {
	bytes.Buffer
	stop context.CancelFunc
}

func (w *untilAdvice) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("until Ctrl-C")) {
		w.stop()
	}
	return w.Buffer.Write(p)
}

func TestQuickstartStaysUntilToldToEnd(t *testing.T) {
	binary, temp := buildEtcdseal(t), emptyTemp(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &untilAdvice{stop: stop}
	if err := quickstart(ctx, binary, false, &screen{out: out, colored: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--etcd-servers=http", "--etcd-servers-overrides='/secrets#http", "etcdctl --endpoints=http", "\x1b[31m"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the show has no %q:\n%s", want, out.String())
		}
	}
	checkNothingLeft(t, temp)
}

func TestQuickstartCleansUpAfterFailure(t *testing.T) {
	temp := emptyTemp(t)
	err := quickstart(t.Context(), filepath.Join(temp, "none"), true, &screen{out: new(bytes.Buffer)})
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("quickstart without etcdseal returned %v, want a hint at make build", err)
	}
	checkNothingLeft(t, temp)
}

// TestProxyThatEndsIsReported starts a proxy without a key file, which refuses
// its configuration.
func TestProxyThatEndsIsReported(t *testing.T) {
	binary, temp := buildEtcdseal(t), emptyTemp(t)
	_, err := startProxy(t.Context(), binary, temp, "http://127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "ended by itself: exit status 2") || !strings.Contains(err.Error(), "keks.dev.local.keyFile") {
		t.Errorf("startProxy returned %v, want the exit status and the reason", err)
	}
}

func TestStopKillsWhoDoesNotEnd(t *testing.T) {
	command := exec.Command("sh", "-c", "trap '' TERM; echo ready; exec sleep 600")
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p := &proxy{command: command, ended: make(chan struct{})}
	go func() {
		_ = command.Wait()
		close(p.ended)
	}()
	p.stop(time.Millisecond)
	if state := command.ProcessState; state.Success() {
		t.Errorf("the process ended with %v, want a kill", state)
	}
}
