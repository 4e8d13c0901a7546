//go:build !linux

package upstream

import "syscall"

// setUserTimeout does nothing where the system has no TCP_USER_TIMEOUT.
func setUserTimeout(string, string, syscall.RawConn) error { return nil }
