//go:build !race

package socket

import (
	"sync"
	"syscall"
	"unsafe"
)

// maxParts is how many pieces one writev takes (IOV_MAX of limits.h).
const maxParts = 1024

var vectors = sync.Pool{New: func() any { return new([maxParts]syscall.Iovec) }}

// read is read(2).
func read(fd uintptr, b []byte) (int, error) {
	return untold(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
}

// write is write(2).
func write(fd uintptr, b []byte) (int, error) {
	return untold(syscall.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
}

// writeParts is writev(2) of the first of parts, untoldBytes of them at most.
func writeParts(fd uintptr, parts [][]byte) (int, error) {
	vector := vectors.Get().(*[maxParts]syscall.Iovec)
	n, bytes := 0, 0
	for _, part := range parts {
		if n == maxParts || bytes >= untoldBytes {
			break
		}
		if part = part[:min(len(part), untoldBytes-bytes)]; len(part) > 0 {
			vector[n].Base = unsafe.SliceData(part)
			vector[n].SetLen(len(part))
			n++
			bytes += len(part)
		}
	}
	written, err := untold(syscall.SYS_WRITEV, fd, unsafe.Pointer(vector), n)
	clear(vector[:n])
	vectors.Put(vector)
	return written, err
}

// untold is one system call of which the scheduler is not told. It must be one that does not wait
// for anybody.
func untold(call, fd uintptr, at unsafe.Pointer, n int) (int, error) {
	got, _, errno := syscall.RawSyscall(call, fd, uintptr(at), uintptr(n))
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

// tell makes a call of which the scheduler is told: getppid(2), which does nothing.
func tell() { _, _, _ = syscall.Syscall(syscall.SYS_GETPPID, 0, 0, 0) }
