//go:build !(linux && amd64)

package dek

import "time"

// systemClock returns nanoseconds since 1970, UTC.
func systemClock() int64 { return time.Now().UnixNano() }
