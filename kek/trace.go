package kek

import (
	"context"
	"time"
)

// Trace is what a provider tells of one call beyond its result, for an audit trail
// whose lines can be matched with the provider's own. Fields that a provider does
// not know stay zero; none of them is secret.
type Trace struct {
	// KeyID names the key with its version, in the provider's terms. It is
	// for people and logs alone: nothing is ever looked up by it.
	KeyID string
	// Status is the HTTP status of the last answer.
	Status int
	// Code is the provider's error code, the general and the particular part
	// with a slash between them.
	Code string
	// RequestID is the provider's name of the last request.
	RequestID string
	// ClientRequestID is the name that the caller gave all requests of the
	// call.
	ClientRequestID string
	// Date is when the last answer was made, by the provider's clock; it has
	// whole seconds.
	Date time.Time
	// Tries is how often it was tried. Zero: nobody was asked.
	Tries int
}

type traceKey struct{}

// WithTrace returns a context with which a call of a KEK fills in t before it
// returns. One t serves one call.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceFrom returns the Trace of a context for the provider to fill in; without one
// it returns a Trace that nobody reads.
func TraceFrom(ctx context.Context) *Trace {
	if t, ok := ctx.Value(traceKey{}).(*Trace); ok {
		return t
	}
	return &Trace{}
}
