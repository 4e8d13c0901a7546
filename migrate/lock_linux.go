package migrate

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockShared keeps an etcd from starting to use a file until it is closed, where it would
// lock it in the way of its database. It fails if one is using it: databases and segments
// of the log are locked in two different ways.
func lockShared(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w", f.Name(), ErrInUse)
	}
	held := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &held); err == nil && held.Type != unix.F_UNLCK {
		return fmt.Errorf("%s: %w", f.Name(), ErrInUse)
	}
	return nil // a file system without locks has none that could be asked for
}
