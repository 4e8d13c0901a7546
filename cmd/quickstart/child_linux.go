package main

import "syscall"

// childAttributes keep the terminal's Ctrl-C from the child, which is told to end
// by its parent, and have the kernel kill it should the parent be killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
