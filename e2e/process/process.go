// Package process runs the programs under test as children of the test.
//
// A child never outlives its test: it is killed by the test's cleanup, and by
// the kernel (PR_SET_PDEATHSIG) when the test's process dies without one. Only
// processes started here are ever signalled, each by its own id. What a child
// prints goes to a Log, which the test shows when it fails.
package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/poll"
)

// killLimit is how long a killed child may take to be reaped.
const killLimit = 30 * time.Second

// Config says which program to run and how. Path and Log must be set.
type Config struct {
	// Path is the program's file.
	Path string
	// Args are its arguments, without the program's name.
	Args []string
	// Env is added to the few variables that every child gets.
	Env []string
	// ExtraFiles are the child's from file descriptor 3 on.
	ExtraFiles []*os.File
	// Dir is the working folder; empty means the test's.
	Dir string
	// Log receives standard output and standard error.
	Log *Log
	// Owner is the test whose end kills the child. A subtest that restarts
	// what its parent started must name the parent; nil means the caller's test.
	Owner testing.TB
}

// Process is a running or ended child. Its methods may be called from any
// goroutine, except those that take a testing.TB and may fail the test.
type Process struct {
	name string
	log  *Log
	cmd  *exec.Cmd
	// done is closed after the child was reaped; cmd.ProcessState is set then.
	done chan struct{}
}

// Start runs the program and kills it when its owner ends.
func Start(t testing.TB, cfg Config) *Process {
	t.Helper()
	if cfg.Owner == nil {
		cfg.Owner = t
	}
	cmd := exec.Command(cfg.Path, cfg.Args...)
	cmd.Dir, cmd.ExtraFiles = cfg.Dir, cfg.ExtraFiles
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + cfg.Owner.TempDir()}, cfg.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cfg.Log.open()
	if err != nil {
		t.Fatalf("opening log of %s: %v", cfg.Log.name, err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	p := &Process{name: cfg.Log.name, log: cfg.Log, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the starting thread ends, not
		// the process: this goroutine keeps its thread until the child is gone.
		runtime.LockOSThread()
		defer out.Close()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", p.name, err)
	}
	cfg.Owner.Cleanup(func() { p.Kill(cfg.Owner) })
	return p
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exited returns nil while the child runs, else a permanent error that says
// how it ended.
func (p *Process) Exited() error {
	select {
	case <-p.done:
		return poll.Permanent{Err: fmt.Errorf("%s has ended: %v", p.name, p.cmd.ProcessState)}
	default:
		return nil
	}
}

// WaitFor polls try as poll.Until does, but gives up as soon as the child ends.
func (p *Process) WaitFor(t testing.TB, limit time.Duration, what string, try func(context.Context) error) {
	t.Helper()
	poll.Until(t, limit, what, func(ctx context.Context) error {
		if err := p.Exited(); err != nil {
			return err
		}
		return try(ctx)
	})
}

// Signal sends sig to the child.
func (p *Process) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("sending %v to %s: %v", sig, p.name, err)
	}
}

// Wait waits for the child to end by itself and returns its state; the test
// fails when that takes longer than limit.
func (p *Process) Wait(t testing.TB, limit time.Duration) *os.ProcessState {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState
	case <-timer.C:
		t.Fatalf("%s has not ended within %v", p.name, limit)
		return nil
	}
}

// Kill ends the child with SIGKILL and waits for it. Killing an ended child is
// no error.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if p.Exited() != nil {
		return
	}
	_ = p.cmd.Process.Kill() // an error means that it has ended by itself
	p.Wait(t, killLimit)
}

// Run runs a program to its end and returns what it printed; the test fails
// when it does not exit with status 0 within limit.
func Run(t testing.TB, limit time.Duration, path string, args ...string) string {
	t.Helper()
	return RunTo(t, limit, 0, path, args...)
}

// RunTo is Run for a program that has to exit with another status.
func RunTo(t testing.TB, limit time.Duration, status int, path string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status {
		t.Fatalf("running %s %q: %v, want exit status %d\n%s", path, args, err, status, out)
	}
	return string(out)
}
