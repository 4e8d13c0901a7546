//go:build benchprofile

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// profile lets the benchmark take profiles of a build that was made for it, with the tag benchprofile: if ETCDSEAL_BENCH_PROFILE names a directory, a
// SIGUSR1 begins a CPU profile there, and the next one ends it and writes the heap's. Releases are built without any of this: there is nothing to
// switch on, and no port from which a profile could be read.
func profile() {
	dir := os.Getenv("ETCDSEAL_BENCH_PROFILE")
	if dir == "" {
		return
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() { // until the process ends
		for range signals {
			if err := profileOnce(dir, signals); err != nil {
				fmt.Fprintf(os.Stderr, "etcdseal: writing profile: %v\n", err)
			}
		}
	}()
}

// profileOnce writes cpu.pprof and, last, heap.pprof. The file running says that the CPU profile has begun.
func profileOnce(dir string, end <-chan os.Signal) error {
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return err
	}
	defer cpu.Close()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "running"), nil, 0o600); err != nil {
		pprof.StopCPUProfile()
		return err
	}
	<-end
	pprof.StopCPUProfile()
	runtime.GC() // so that the heap's profile is of what is in use
	partial := filepath.Join(dir, "heap.partial")
	heap, err := os.Create(partial)
	if err != nil {
		return err
	}
	defer heap.Close()
	if err := pprof.Lookup("heap").WriteTo(heap, 0); err != nil {
		return err
	}
	return os.Rename(partial, filepath.Join(dir, "heap.pprof"))
}
