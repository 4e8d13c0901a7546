package child

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Freeze stops the process where it is (SIGSTOP), so that it uses no processor time until Thaw. A frozen process must be thawed before Stop, since it
// cannot obey.
func (p *Process) Freeze() error { return p.signal(syscall.SIGSTOP, "freezing") }

// Thaw lets a frozen process go on.
func (p *Process) Thaw() error { return p.signal(syscall.SIGCONT, "thawing") }

// Kill ends the process by SIGKILL, frozen or not, and waits for it. One that has ended already is no error.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.exited
	return nil
}

// signal fails with the reason of the process's end when it is not running any more.
func (p *Process) signal(s syscall.Signal, doing string) error {
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		<-p.exited
		return p.Err()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, p.name, err)
	}
	return nil
}
