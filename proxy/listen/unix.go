package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketMode lets only the owner, and root, connect (unix(7): connecting needs the right to write).
const socketMode = 0o600

// maxSocketPath is the longest path that fits sun_path on Linux with its closing zero.
const maxSocketPath = 107

// listenUnix listens on path and returns what takes the socket away again.
//
// The socket is bound inside a new directory that only this user may enter, gets its mode there, and is then renamed to path: there is no moment at which
// anybody else could connect, and a stale socket is replaced in one step. The directory of path is locked (flock) while this is done, so that two processes
// that start together cannot both find the place free.
func listenUnix(ctx context.Context, path string) (ln net.Listener, remove func() error, err error) {
	dir := filepath.Dir(path)
	unlock, err := lock(dir)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if err := vacant(ctx, path); err != nil {
		return nil, nil, err
	}
	private, err := os.MkdirTemp(dir, ".es")
	if err != nil {
		return nil, nil, fmt.Errorf("making private directory: %w", err)
	}
	defer os.RemoveAll(private)
	bound := filepath.Join(private, "s")
	if len(bound) > maxSocketPath || len(path) > maxSocketPath {
		return nil, nil, fmt.Errorf("binding socket: the path is too long, its directory may have %d bytes at most", maxSocketPath-len(bound)+len(dir))
	}
	var lc net.ListenConfig
	ln, err = lc.Listen(ctx, "unix", bound)
	if err != nil {
		return nil, nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // it would unlink the path that was bound, which is not the socket's any more
	info, err := place(bound, path)
	if err != nil {
		return nil, nil, errors.Join(err, ln.Close())
	}
	return ln, func() error { return removeOwn(path, info) }, nil
}

// place gives a bound socket its mode and moves it to its path.
func place(bound, path string) (os.FileInfo, error) {
	if err := os.Chmod(bound, socketMode); err != nil {
		return nil, fmt.Errorf("setting mode of socket: %w", err)
	}
	info, err := os.Lstat(bound)
	if err != nil {
		return nil, fmt.Errorf("examining socket: %w", err)
	}
	if err := os.Rename(bound, path); err != nil {
		return nil, fmt.Errorf("moving socket into place: %w", err)
	}
	return info, nil
}

// vacant says whether a socket may be put at path: nothing is there, or a socket on which nobody answers.
func vacant(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examining socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("examining socket: %s is there and is no socket; move it away", path)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("examining socket: another process listens on %s; stop it first", path), conn.Close())
	}
	// Only a refusal proves that nobody listens: a full backlog or a missing right does not.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("examining socket: cannot tell whether %s is in use: %w", path, err)
	}
	return nil
}

// removeOwn removes the socket at path if it is still the one described by info.
func removeOwn(path string, info os.FileInfo) error {
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	now, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(now, info) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examining socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing socket: %w", err)
	}
	return nil
}

// lock takes an exclusive lock on a directory among the processes that use this function. The kernel drops it with the process.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening socket directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking socket directory %s: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}
