//go:build !linux

package main

import "syscall"

// childAttributes keep the terminal's Ctrl-C from the child, which is told to end
// by its parent.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
