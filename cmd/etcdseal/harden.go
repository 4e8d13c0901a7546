package main

import (
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// harden keeps what the process holds in memory from leaving it by the side: no
// core file, no reading by other processes of the same user, no logs of libraries.
// godebug is the environment's GODEBUG.
func harden(godebug string) error {
	// The same test as in net/http and golang.org/x/net/http2. Level 1 logs
	// headers, with tokens in them; level 2 logs bodies, the KMS's answers among
	// them.
	for _, setting := range []string{"http2debug=1", "http2debug=2"} {
		if strings.Contains(godebug, setting) {
			return errors.New("refusing to start: GODEBUG has " + setting + ", which logs tokens and keys: take it out of the environment")
		}
	}
	// gRPC and its JSON gateway log requests that they cannot read, with what is in
	// them.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	return seclude()
}
