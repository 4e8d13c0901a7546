// Package child runs the processes that a measurement is about and reads what the kernel says about them: processor time and memory.
//
// Every process is killed by the kernel when the process that started it dies, so that an interrupted benchmark leaves nothing behind.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end after SIGTERM before it is killed.
const stopGrace = 10 * time.Second

// tailSize is how many bytes of a process's output are shown when it failed.
const tailSize = 2048

// Config says what to run.
type Config struct {
	// Name is used in errors and as the name of the log file. It must not contain a path separator.
	Name string
	// Path is the program.
	Path string
	// Args are its arguments, without the program's name.
	Args []string
	// Env is added to the benchmark's own environment, as NAME=VALUE.
	Env []string
	// LogDir is the directory of the file NAME.log, which receives standard output and standard error. Empty means that both are discarded.
	LogDir string
}

// Process is one running child. Its methods are safe for concurrent use.
type Process struct {
	name    string
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed after err is set
	err     error
}

// Start runs the program and returns once it is executing. The caller must call Stop.
func Start(cfg Config) (*Process, error) {
	p := &Process{name: cfg.Name, cmd: exec.Command(cfg.Path, cfg.Args...), exited: make(chan struct{})}
	if len(cfg.Env) > 0 {
		p.cmd.Env = append(os.Environ(), cfg.Env...)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if cfg.LogDir != "" {
		p.logPath = filepath.Join(cfg.LogDir, cfg.Name+".log")
		log, err := os.Create(p.logPath)
		if err != nil {
			return nil, fmt.Errorf("creating log of %s: %w", cfg.Name, err)
		}
		defer log.Close() // the child holds a descriptor of its own
		p.cmd.Stdout, p.cmd.Stderr = log, log
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err says why the process is not running any more, with the end of its output; nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.exited:
		return fmt.Errorf("running %s: ended with %v; its last output:\n%s", p.name, p.cmd.ProcessState, p.tail())
	default:
		return nil
	}
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signalling %s: %w", p.name, err)
	}
	return nil
}

// Stop asks the process to end, kills it when it does not within ten seconds, and waits for it. A process that was killed is an error.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.exited
	return fmt.Errorf("stopping %s: did not end within %s after SIGTERM", p.name, stopGrace)
}

func (p *Process) tail() string {
	if p.logPath == "" {
		return ""
	}
	data, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-tailSize):])
}
