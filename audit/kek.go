package audit

import (
	"context"
	"time"

	"github.com/etcdseal/etcdseal/kek"
)

// KEK returns a KEK that does what k does and writes a line for each wrap and unwrap,
// and for each question for the version that the provider was asked, before the result
// is there for the caller. Its errors are k's, or of class Unavailable with ErrUnwritten.
// The result is Dated if k is.
func (l *Log) KEK(name string, k kek.KEK) kek.KEK {
	audited := &audited{KEK: k, name: name, log: l}
	if dated, ok := k.(kek.Dated); ok {
		return &auditedDated{audited, dated}
	}
	return audited
}

// audited is a KEK with an audit log.
type audited struct {
	kek.KEK
	name string
	log  *Log
}

// Wrap implements kek.KEK.
func (a *audited) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	call, err := a.begin(ctx, kek.OpWrap, "")
	if err != nil {
		return kek.Wrapping{}, err
	}
	w, err := a.KEK.Wrap(call.ctx, dek)
	call.version = w.Version
	if err := call.end(err); err != nil {
		return kek.Wrapping{}, err
	}
	return w, nil
}

// Unwrap implements kek.KEK. A DEK whose line cannot be written is wiped.
func (a *audited) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	call, err := a.begin(ctx, kek.OpUnwrap, w.Version)
	if err != nil {
		return nil, err
	}
	dek, err := a.KEK.Unwrap(call.ctx, w)
	if err := call.end(err); err != nil {
		clear(dek)
		return nil, err
	}
	return dek, nil
}

// Version implements kek.KEK. Most of its answers are at hand: those are no use of the
// key.
func (a *audited) Version(ctx context.Context) (string, error) {
	call, err := a.begin(ctx, kek.OpVersion, "")
	if err != nil {
		return "", err
	}
	version, err := a.KEK.Version(call.ctx)
	if call.trace.Tries == 0 || call.trace.ClientRequestID == "" {
		return version, err
	}
	if err := call.end(err); err != nil {
		return "", err
	}
	return version, nil
}

// auditedDated is an audited KEK that can say when its versions were made.
type auditedDated struct {
	*audited
	dated kek.Dated
}

// Created implements kek.Dated. It is about the key and no use of it.
func (a *auditedDated) Created(ctx context.Context, version string) (time.Time, error) {
	return a.dated.Created(ctx, version)
}

// call is one call of a KEK.
type call struct {
	*audited
	ctx         context.Context // for the KEK
	op, version string
	outer       *kek.Trace // the caller's
	trace       kek.Trace
	began       time.Time
}

// begin begins a call, unless it is known that its line cannot be written.
func (a *audited) begin(ctx context.Context, op, version string) (*call, error) {
	if err := a.log.usable(); err != nil {
		return nil, a.unwritten(op, version, err)
	}
	c := &call{audited: a, op: op, version: version, outer: kek.TraceFrom(ctx), began: a.log.config.Now()}
	c.ctx = kek.WithTrace(ctx, &c.trace)
	return c, nil
}

// end writes the line of a call that ended with an error or nil, and returns that error,
// or why the line could not be written.
func (c *call) end(err error) error {
	*c.outer = c.trace
	purpose := kek.PurposeOf(c.ctx)
	line := Line{
		Time: c.began, Op: c.op, Why: string(purpose.Why), KEK: c.name, KeyID: cut(c.trace.KeyID), DEK: purpose.DEK,
		Result: kek.ClassOf(err).String(), Status: c.trace.Status, Code: cut(c.trace.Code),
		RequestID: cut(c.trace.RequestID), ClientRequestID: cut(c.trace.ClientRequestID), Tries: c.trace.Tries,
		Duration: float64(c.log.config.Now().Sub(c.began).Microseconds()) / 1000,
	}
	if line.KeyID == "" {
		line.KeyID = cut(c.version)
	}
	if unwritten := c.write(line, err == nil); unwritten != nil {
		return c.unwritten(c.op, c.version, unwritten)
	}
	return err
}

// write writes a line, and notes the key's name if it was used.
func (c *call) write(line Line, used bool) error {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if used && c.version != "" && line.KeyID != "" {
		c.log.named(c.name, c.version, line.KeyID)
	}
	return c.log.write(line)
}

func (a *audited) unwritten(op, version string, err error) error {
	return &kek.Error{Class: kek.Unavailable, Op: op, KEK: a.name, Version: version, Err: err}
}

// cut bounds what a provider said.
func cut(s string) string { return s[:min(len(s), maxText)] }
