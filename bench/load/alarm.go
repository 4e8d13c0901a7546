package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm waits by a timer of the kernel's that is a file (timerfd_create(2)), so that the runtime's poller wakes the goroutine as it does when a socket
// has data: exact to some microseconds, without a thread and without spinning.
//
// Go's own timers end with a wait of the poller, whose unit is the millisecond; that is more than what is measured. A thread that sleeps by itself is
// exact too, but as long as it is in a system call the runtime's monitor looks at it every 20 us, which takes more processor time than the calls do.
type alarm struct {
	fd   int
	file *os.File
}

// newAlarm returns an alarm to be closed. It is used by one goroutine.
func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making timer: %w", err)
	}
	return &alarm{fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}, nil
}

func (a *alarm) close() { a.file.Close() }

// wait returns at the time, never before it, or with an error when ctx ends.
func (a *alarm) wait(ctx context.Context, until time.Time) error {
	stop := context.AfterFunc(ctx, func() { _ = a.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		left := time.Until(until)
		if left <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		if err := unix.TimerfdSettime(a.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(left.Nanoseconds())}, nil); err != nil {
			return fmt.Errorf("setting timer: %w", err)
		}
		var expirations [8]byte
		if _, err := a.file.Read(expirations[:]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("waiting for timer: %w", err)
		}
	}
}
