//go:build !benchprofile

package main

// profile does nothing in a release: see profile_bench.go.
func profile() {}
