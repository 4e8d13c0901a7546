package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/etcdseal/etcdseal/bench/rig"
)

// profilePatience bounds the wait for an etcdseal to do as a signal says.
const profilePatience = 20 * time.Second

// What an etcdseal that was built for it writes: it makes the first file when a signal has begun a profile, and the other two at the next signal,
// the heap's last (cmd/etcdseal/profile_bench.go).
const (
	profileRunning = "running"
	profileCPU     = "cpu.pprof"
	profileHeap    = "heap.pprof"
	profilePartial = "heap.partial" // which becomes the heap's when it is whole
)

// profiles takes profiles into a directory; none if it is empty.
type profiles struct{ dir string }

func newProfiles(dir string) (profiles, error) {
	if dir == "" {
		return profiles{}, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return profiles{}, fmt.Errorf("finding %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return profiles{}, fmt.Errorf("making directory of profiles: %w", err)
	}
	return profiles{dir}, nil
}

// take is nil when no profiles are wanted.
func (p profiles) take() func(context.Context, *rig.Target, string, func() error) error {
	if p.dir == "" {
		return nil
	}
	return func(ctx context.Context, t *rig.Target, workload string, run func() error) error {
		if err := p.removeStale(); err != nil {
			return err
		}
		if err := t.Process.Signal(syscall.SIGUSR1); err != nil {
			return err
		}
		if err := p.await(ctx, profileRunning); err != nil {
			return err
		}
		err := run()
		if err := errors.Join(err, t.Process.Signal(syscall.SIGUSR1)); err != nil {
			return err
		}
		if err := p.await(ctx, profileHeap); err != nil {
			return err
		}
		var errs []error
		for _, name := range []string{profileCPU, profileHeap} {
			errs = append(errs, os.Rename(filepath.Join(p.dir, name), filepath.Join(p.dir, workload+"-"+t.Name+"-"+name)))
		}
		return errors.Join(append(errs, os.Remove(filepath.Join(p.dir, profileRunning)))...)
	}
}

// removeStale removes what an interrupted run has left, so that it is not taken for what the next signal brings about.
func (p profiles) removeStale() error {
	for _, name := range []string{profileRunning, profileCPU, profilePartial, profileHeap} {
		if err := os.Remove(filepath.Join(p.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an earlier run's profile: %w", err)
		}
	}
	return nil
}

// await waits for a file to appear.
func (p profiles) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, profilePatience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		_, err := os.Stat(filepath.Join(p.dir, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the profile file %s: %w", name, ctx.Err())
		}
	}
}
