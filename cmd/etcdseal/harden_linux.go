package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// seclude makes the process not dumpable, which also keeps others of the same
// user from attaching to it or reading its memory (PR_SET_DUMPABLE in prctl(2),
// ptrace(2)), and limits core files to nothing (setrlimit(2)).
func seclude() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process not dumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limiting core files: %w", err)
	}
	return nil
}
