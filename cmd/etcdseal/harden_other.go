//go:build !linux

package main

import "github.com/etcdseal/etcdseal/doctor"

// seclude does nothing: only Linux is hardened.
func seclude() error { return nil }

// host says that nothing is known of that.
func host(godebug string) doctor.Host { return doctor.Host{Godebug: godebug} }
