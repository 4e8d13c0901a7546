package dek

import (
	"syscall"
	"time"
)

// systemClock is time.Now().UnixNano for a hot path: the standard library reads
// two clocks for a time.Time (67 ns on the machine that the figures are from), this
// reads one through the kernel's vDSO (29 ns).
func systemClock() int64 {
	var tv syscall.Timeval
	if err := syscall.Gettimeofday(&tv); err != nil {
		return time.Now().UnixNano()
	}
	return tv.Nano()
}
