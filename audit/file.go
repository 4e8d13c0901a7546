package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// file is what lines are written to.
type file interface {
	io.WriteCloser
	// Sync returns when what was written survives a crash of the machine.
	Sync() error
}

// openFile opens a file to append to, and makes it if it is not there. A directory, a
// pipe or a device cannot be flushed; one that others may write to is no audit log.
func openFile(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // before opening, which would wait for a pipe's reader
		return nil, fmt.Errorf("%s is not a regular file: for a pipe, write audit: {stdout: true} and redirect", path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("%s has mode %#o, so that others may change it: run `chmod 600 %s`", path, info.Mode().Perm(), path)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

// unflushed is an output that is neither flushed nor closed.
type unflushed struct{ io.Writer }

func (unflushed) Sync() error  { return nil }
func (unflushed) Close() error { return nil }

// closed is the file of a Log that was closed.
type closed struct{}

var errClosed = errors.New("the audit log is closed")

func (closed) Write([]byte) (int, error) { return 0, errClosed }
func (closed) Sync() error               { return errClosed }
func (closed) Close() error              { return nil }
