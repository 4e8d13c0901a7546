package doctor

import (
	"context"

	"github.com/etcdseal/etcdseal/kek"
)

// absent is a KEK in the place of one that was not heard, for the keyring, which need not
// wait for it again.
type absent struct {
	name string
	err  error
}

// Wrap implements kek.KEK.
func (a absent) Wrap(context.Context, []byte) (kek.Wrapping, error) {
	return kek.Wrapping{}, a.fail(kek.OpWrap)
}

// Unwrap implements kek.KEK.
func (a absent) Unwrap(context.Context, kek.Wrapping) ([]byte, error) {
	return nil, a.fail(kek.OpUnwrap)
}

// Version implements kek.KEK.
func (a absent) Version(context.Context) (string, error) { return "", a.fail(kek.OpVersion) }

// Close implements kek.KEK.
func (a absent) Close() error { return nil }

func (a absent) fail(op string) error {
	return &kek.Error{Class: kek.Unavailable, Op: op, KEK: a.name, Err: a.err}
}
