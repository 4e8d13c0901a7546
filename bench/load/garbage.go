package load

import (
	"runtime"
	"runtime/debug"
)

// mostGarbage is what this process may hold, in bytes, before it collects its garbage all the same.
const mostGarbage = 4 << 30

// HoldGarbage collects this process's garbage, and none until release is called: the client's collections are not what is measured, and with some
// thousand streams one of them holds everything up for a tenth of a second, in whichever target's turn it comes.
func HoldGarbage() (release func()) {
	runtime.GC()
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(mostGarbage)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}
