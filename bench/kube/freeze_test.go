package kube

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/bench/child"
)

// A process that has ended does not keep the others of its side frozen, and the side is not said to be thawed.
func TestResumeThawsAll(t *testing.T) {
	s := &side{}
	for _, into := range []**child.Process{&s.etcd, &s.between, &s.server} {
		p, err := child.Start(child.Config{Name: "idle", Path: "sleep", Args: []string{"3600"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		})
		*into = p
	}
	for range 2 { // the second time after the first thawing
		if err := s.freeze(); err != nil || !s.frozen {
			t.Fatalf("freezing: %v, frozen %t", err, s.frozen)
		}
		waitState(t, s.server, true)
		if err := s.resume(); err != nil || s.frozen {
			t.Fatalf("thawing: %v, frozen %t", err, s.frozen)
		}
		waitState(t, s.server, false)
	}
	if err := s.freeze(); err != nil {
		t.Fatal(err)
	}
	waitState(t, s.server, true)
	if err := s.etcd.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.resume(); err == nil || !s.frozen {
		t.Errorf("thawing a side of which a process has ended: %v, frozen %t, want an error, true", err, s.frozen)
	}
	waitState(t, s.server, false)
}

// waitState polls until the kernel says that the process is frozen ('T'), or is not.
func waitState(t *testing.T, p *child.Process, frozen bool) {
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
