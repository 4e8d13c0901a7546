package proxy

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"
)

// caller is what a request says of whoever makes it: the metadata and how long the
// answer is waited for. Calls that are made on its behalf carry both, so that to
// etcd they are the caller's. It is kept for calls that hardly ever need it, and so
// takes no memory of its own as long as there is little to keep.
type caller struct {
	few     [3]hpack.HeaderField
	n       int
	more    []hpack.HeaderField
	timeout string
}

// keep takes what matters out of a request's fields.
func (c *caller) keep(fields []hpack.HeaderField) {
	for i := range fields {
		f := &fields[i]
		switch {
		case f.Name == "grpc-timeout":
			c.timeout = f.Value
		case isTransport(f.Name):
		case c.n < len(c.few):
			c.few[c.n] = *f
			c.n++
		default:
			c.more = append(c.more, *f)
		}
	}
}

// isTransport tells fields that gRPC itself makes and reads from metadata.
func isTransport(name string) bool {
	if name == "" || name[0] == ':' {
		return true
	}
	switch name {
	case "content-type", "content-length", "user-agent", "te", "host",
		"grpc-encoding", "grpc-accept-encoding", "grpc-message-type", "grpc-message", "grpc-status", "grpc-previous-rpc-attempts":
		return true
	}
	return false
}

// context returns a context for calls on the caller's behalf.
func (c *caller) context(ctx context.Context) (context.Context, context.CancelFunc) {
	md := metadata.MD{}
	for _, list := range [][]hpack.HeaderField{c.few[:c.n], c.more} {
		for _, f := range list {
			addMetadata(md, f)
		}
	}
	ctx = metadata.NewOutgoingContext(ctx, md)
	if d, ok := parseTimeout(c.timeout); ok {
		return context.WithTimeout(ctx, d)
	}
	return context.WithCancel(ctx)
}

// addMetadata adds a field as gRPC's metadata have it: values of -bin fields are
// bytes, in base64 and separated by commas on the wire. What a gRPC client refuses to
// send is left out: etcd takes it and knows no such metadata.
func addMetadata(md metadata.MD, f hpack.HeaderField) {
	if strings.ContainsFunc(f.Name, notInKey) {
		return
	}
	if !strings.HasSuffix(f.Name, "-bin") {
		if !strings.ContainsFunc(f.Value, notPrintable) {
			md.Append(f.Name, f.Value)
		}
		return
	}
	for value := range strings.SplitSeq(f.Value, ",") {
		if b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "=")); err == nil {
			md.Append(f.Name, string(b))
		}
	}
}

// notInKey and notPrintable are what must not be in the keys and the values of
// metadata (PROTOCOL-HTTP2.md).
func notInKey(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
}

func notPrintable(c rune) bool { return c < ' ' || c > '~' }

// timeoutUnits are those of grpc-timeout (PROTOCOL-HTTP2.md).
var timeoutUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// parseTimeout reads a grpc-timeout. One that is not valid, which etcd refuses, or
// longer than a duration can be is none.
func parseTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	unit, ok := timeoutUnits[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	const longest = 200 * 365 * 24 * time.Hour
	if !ok || err != nil || time.Duration(n) > longest/unit {
		return 0, false
	}
	return time.Duration(n) * unit, true
}
