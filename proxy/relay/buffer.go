package relay

import (
	"math/bits"
	"sync"
	"unsafe"
)

// Message buffers come from pools by size, so that a large answer costs no
// fresh zeroed memory each time.
const (
	smallestBuffer = 9 // log2 of bytes
	largestBuffer  = 23
)

var bufferPools [largestBuffer + 1]sync.Pool

// buffer is memory for one message, owned by one item at a time. While some of it
// is lent to a write Pair.mu guards the rest.
type buffer struct {
	b     []byte
	loans int
	ended bool // freed while it was lent
}

// newBuffer returns a buffer of length 0 that holds n bytes without growing.
func newBuffer(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), smallestBuffer)
	if class > largestBuffer {
		return &buffer{b: make([]byte, 0, n)}
	}
	if v := bufferPools[class].Get(); v != nil {
		return v.(*buffer)
	}
	return &buffer{b: make([]byte, 0, 1<<class)}
}

// free gives the buffer back; nil is allowed. Nobody uses it afterwards.
func (b *buffer) free() {
	if b == nil {
		return
	}
	if b.ended = b.loans > 0; b.ended {
		return
	}
	class := bits.Len(uint(cap(b.b))) - 1
	if class < smallestBuffer || class > largestBuffer || cap(b.b) != 1<<class {
		return
	}
	b.b = b.b[:0]
	bufferPools[class].Put(b)
}

// giveBack ends a loan.
func (b *buffer) giveBack() {
	if b.loans--; b.ended {
		b.free()
	}
}

// within reports whether part lies in the memory of whole.
func within(part, whole []byte) bool {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	return cap(part) > 0 && start <= at && at < start+uintptr(cap(whole))
}
