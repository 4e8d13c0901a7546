package child

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// waitState polls until the kernel says that the process is frozen ('T'), or is not.
func waitState(t *testing.T, p *Process, frozen bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if strings.HasPrefix(rest, "T") == frozen {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the process's state is %.1s, want frozen %t", rest, frozen)
		}
	}
}

// waitFile polls until the process has made a file.
func waitFile(t *testing.T, p *Process, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.Exited():
			t.Fatal(p.Err())
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", path, ctx.Err())
		}
	}
}

func TestFreezing(t *testing.T) {
	p, err := Start(Config{Name: "idle", Path: "sleep", Args: []string{"3600"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do     func() error
		frozen bool
	}{{p.Freeze, true}, {p.Thaw, false}, {p.Freeze, true}} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		waitState(t, p, step.frozen)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("killing a frozen process: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("killing it twice: %v", err)
	}
	if err := p.Freeze(); err == nil {
		t.Error("a process that has ended was frozen")
	}
}
