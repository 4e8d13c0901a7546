package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestHarden looks at the tests' own process, which TestMain has hardened.
func TestHarden(t *testing.T) {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("dumpable is %d (%v), want 0", dumpable, err)
	}
	limit := unix.Rlimit{Cur: 1, Max: 1}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit != (unix.Rlimit{}) {
		t.Errorf("limit of core files is %+v (%v), want 0", limit, err)
	}
}
