package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is the version of the build. The Makefile sets it from git with the
// linker's -X; nothing else writes it.
var version string

// printVersion carries out `etcdseal version`.
func printVersion(_ context.Context, args []string, s streams) int {
	if status, ok := parseFlags(flag.NewFlagSet("version", flag.ContinueOnError), args, s); !ok {
		return status
	}
	_, err := fmt.Fprintf(s.out, "etcdseal %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return finish(s, exitDone, err)
}

// buildVersion returns version, or what the go command knows of a build that was
// made without the Makefile.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
