package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/etcdseal/etcdseal/doctor"
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

// host says what became of it. godebug is the environment's GODEBUG.
func host(godebug string) doctor.Host {
	h := doctor.Host{Godebug: godebug}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return h
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return h
	}
	h.Known, h.Dumpable, h.CoreLimit = true, dumpable != 0, limit.Max
	return h
}
