package kmsv2

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/kek"
)

// retryWait is how long a request waits before it is tried again.
const retryWait = 100 * time.Millisecond

// failure is why a request got nothing.
type failure struct {
	class kek.Class
	err   error
}

// call is one request to the plugin.
type call struct {
	uid    string
	header metadata.MD // that the answer came with
}

// options has what a request needs beside the connection's defaults.
func (c *call) options() []grpc.CallOption { return []grpc.CallOption{grpc.Header(&c.header)} }

// request makes a request, and once more if the first one was lost. given is what the
// request gives to the plugin and must not come back in an error.
func request[A any](k *KEK, ctx context.Context, op string, given []byte, do func(context.Context, *call) (A, error)) (answer A, failed *failure) {
	answer, failed, again := try(k, ctx, op, given, do)
	if again && sleep(ctx, retryWait) {
		answer, failed, _ = try(k, ctx, op, given, do)
	}
	return answer, failed
}

// try makes a request once, and says whether it may be made again.
func try[A any](k *KEK, ctx context.Context, op string, given []byte, do func(context.Context, *call) (A, error)) (answer A, failed *failure, again bool) {
	limited, end := context.WithTimeout(ctx, k.config.Timeout)
	defer end()
	c := &call{uid: newUID()}
	began := time.Now()
	answer, err := do(limited, c)
	if op != kek.OpVersion { // a status that Wrap asks for is not what the trace is about
		trace := kek.TraceFrom(ctx)
		trace.ClientRequestID, trace.Code = c.uid, status.Code(err).String()
		trace.Tries++
	}
	k.log.Debug("plugin asked", "op", op, "uid", c.uid, "code", status.Code(err).String(), "duration", time.Since(began).String())
	if err == nil {
		return answer, nil, false
	}
	var none A
	if ctx.Err() != nil {
		return none, &failure{kek.Unavailable, fmt.Errorf("asking the plugin: %w", ctx.Err())}, false
	}
	// Requests wait for a connection, so only their deadline says that there was none.
	if down := k.link.broken(); down != nil && status.Code(err) == codes.DeadlineExceeded {
		err := fmt.Errorf("connecting to the plugin: %w: does it run, and may etcdseal open its socket?", down)
		return none, &failure{kek.Unavailable, err}, false
	}
	if k.closed.Load() {
		return none, &failure{kek.Unavailable, errClosed}, false
	}
	failed = c.failure(op, err, given)
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
		again = true
	}
	return none, failed, again
}

// failure says what a gRPC error means.
func (c *call) failure(op string, err error, given []byte) *failure {
	code := status.Code(err)
	switch {
	case code == codes.ResourceExhausted && len(c.header) > 0:
		// A refusal has no headers of its own, only trailers. So it was not
		// the plugin that said this, but gRPC of an answer that had begun.
		return &failure{kek.Unavailable, fmt.Errorf("the plugin's answer to request %s has more than %d bytes", c.uid, maxMessage)}
	case code == codes.DeadlineExceeded:
		return &failure{kek.Unavailable, fmt.Errorf("the plugin did not answer request %s in time", c.uid)}
	case code == codes.Unimplemented:
		return &failure{kek.Unavailable, fmt.Errorf("the plugin does not know request %s: configure it for KMS v2", c.uid)}
	}
	text := quote(status.Convert(err).Message())
	if repeats(status.Convert(err).Message(), given) {
		text = "its text is withheld, since it repeats what the plugin was given"
	}
	return &failure{classOf(op, code), fmt.Errorf("the plugin answers request %s with %s: %s", c.uid, code, text)}
}

// classOf returns what a plugin means by a gRPC code. The API says nothing of it, and
// most plugins answer Unknown to everything. So only codes that say something of the
// key in so many words count as the key holder's no; see docs/DESIGN.md for the table.
func classOf(op string, code codes.Code) kek.Class {
	switch code {
	case codes.PermissionDenied:
		return kek.Denied
	case codes.FailedPrecondition:
		return kek.Disabled
	case codes.NotFound:
		return kek.NotFound
	case codes.ResourceExhausted:
		return kek.Throttled
	case codes.InvalidArgument, codes.OutOfRange, codes.DataLoss:
		if op == kek.OpUnwrap {
			return kek.Corrupt
		}
	}
	return kek.Unavailable
}

// newUID returns a random UUID (RFC 9562, version 4).
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: the program ends instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// sleep waits for d, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
