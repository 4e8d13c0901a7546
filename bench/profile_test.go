package main

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/etcdseal/etcdseal/bench/child"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// profiledEnv has TestProfilesAreNotStale be the process that is profiled; it names the directory.
const profiledEnv = "BENCH_TEST_PROFILED"

// profiled does with signals what cmd/etcdseal/profile_bench.go does.
func profiled(dir string) error {
	write := func(name, text string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	if err := write("ready", ""); err != nil {
		return err
	}
	<-signals
	if err := errors.Join(write(profileCPU, "fresh"), write(profileRunning, "")); err != nil {
		return err
	}
	<-signals
	return errors.Join(write(profilePartial, "fresh"), os.Rename(filepath.Join(dir, profilePartial), filepath.Join(dir, profileHeap)))
}

// What an interrupted run has left must not pass for the profile that was asked for.
func TestProfilesAreNotStale(t *testing.T) {
	if dir := os.Getenv(profiledEnv); dir != "" {
		if err := profiled(dir); err != nil {
			t.Error(err)
		}
		return
	}
	p, err := newProfiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{profileRunning, profileCPU, profilePartial, profileHeap} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte("stale"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process, err := child.Start(child.Config{Name: "profiled", Path: os.Args[0], Args: []string{"-test.run=^TestProfilesAreNotStale$"}, Env: []string{profiledEnv + "=" + p.dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := p.await(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	holds := func(name, want string) {
		t.Helper()
		if data, err := os.ReadFile(filepath.Join(p.dir, name)); err != nil || string(data) != want {
			t.Errorf("%s holds %q (%v), want %q", name, data, err, want)
		}
	}
	if err := p.take()(t.Context(), &rig.Target{Name: rig.Sealing, Process: process}, "get", func() error {
		holds(profileCPU, "fresh")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	holds("get-etcdseal-cpu.pprof", "fresh")
	holds("get-etcdseal-heap.pprof", "fresh")
}
