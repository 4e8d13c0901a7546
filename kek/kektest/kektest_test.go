package kektest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/kek"
)

func TestFakeConforms(t *testing.T) {
	Run(t, func(*testing.T) kek.KEK { return NewFake("fake", "v1") })
}

// flawed is a Fake with one method replaced, to see the suite find it out.
type flawed struct {
	*Fake
	wrap    func(context.Context, []byte) (kek.Wrapping, error)
	unwrap  func(context.Context, kek.Wrapping) ([]byte, error)
	version func(context.Context) (string, error)
	created func(context.Context, string) (time.Time, error)
	close   func() error
}

func (k *flawed) Created(ctx context.Context, version string) (time.Time, error) {
	if k.created != nil {
		return k.created(ctx, version)
	}
	return k.Fake.Created(ctx, version)
}

func (k *flawed) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	if k.wrap != nil {
		return k.wrap(ctx, dek)
	}
	return k.Fake.Wrap(ctx, dek)
}

func (k *flawed) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	if k.unwrap != nil {
		return k.unwrap(ctx, w)
	}
	return k.Fake.Unwrap(ctx, w)
}

func (k *flawed) Version(ctx context.Context) (string, error) {
	if k.version != nil {
		return k.version(ctx)
	}
	return k.Fake.Version(ctx)
}

func (k *flawed) Close() error {
	if k.close != nil {
		return k.close()
	}
	return k.Fake.Close()
}

// mapWrap changes what Wrap returns.
func mapWrap(change func(dek []byte, w *kek.Wrapping)) func(*flawed) {
	return func(k *flawed) {
		k.wrap = func(ctx context.Context, dek []byte) (kek.Wrapping, error) {
			w, err := k.Fake.Wrap(ctx, dek)
			if err == nil {
				change(dek, &w)
			}
			return w, err
		}
	}
}

// mapUnwrap changes what Unwrap is given.
func mapUnwrap(change func(w *kek.Wrapping)) func(*flawed) {
	return func(k *flawed) {
		k.unwrap = func(ctx context.Context, w kek.Wrapping) ([]byte, error) {
			change(&w)
			return k.Fake.Unwrap(ctx, w)
		}
	}
}

// mapErrors changes the errors of Unwrap.
func mapErrors(change func(w kek.Wrapping, err error) error) func(*flawed) {
	return func(k *flawed) {
		k.unwrap = func(ctx context.Context, w kek.Wrapping) ([]byte, error) {
			dek, err := k.Fake.Unwrap(ctx, w)
			if err != nil {
				err = change(w, err)
			}
			return dek, err
		}
	}
}

// Every check finds the flaw that it is there for.
func TestSuiteFindsFlaws(t *testing.T) {
	handles := 0
	var shared [kek.DEKSize]byte
	for _, tt := range []struct {
		flaw  string
		check string
		set   func(k *flawed)
	}{
		{"no version", "round trip", mapWrap(func(_ []byte, w *kek.Wrapping) { w.Version = "" })},
		{"no algorithm", "round trip", mapWrap(func(_ []byte, w *kek.Wrapping) { w.Algorithm = "" })},
		{"plaintext inside", "round trip", mapWrap(func(dek []byte, w *kek.Wrapping) { w.Ciphertext = append(w.Ciphertext, dek...) })},
		{"Version is not Wrap's", "round trip", func(k *flawed) {
			k.version = func(context.Context) (string, error) { return "v2", nil }
		}},
		{"Unwrap returns another DEK", "round trip", func(k *flawed) {
			k.Swap(func(dek []byte) []byte { return make([]byte, len(dek)) })
		}},
		{"Wrap wipes its argument", "arguments are left alone", mapWrap(func(dek []byte, _ *kek.Wrapping) { clear(dek) })},
		{"Unwrap changes its argument", "arguments are left alone", func(k *flawed) {
			k.unwrap = func(ctx context.Context, w kek.Wrapping) ([]byte, error) {
				dek, err := k.Fake.Unwrap(ctx, w)
				clear(w.Ciphertext)
				return dek, err
			}
		}},
		{"Unwrap returns the same memory", "results are the caller's", func(k *flawed) {
			var kept []byte
			k.Swap(func(dek []byte) []byte {
				if kept == nil {
					kept = dek
				}
				return kept
			})
		}},
		{"one buffer for all results", "results are the caller's", func(k *flawed) {
			k.wrap = func(ctx context.Context, dek []byte) (kek.Wrapping, error) {
				copy(shared[:], dek)
				return k.Fake.Wrap(ctx, dek)
			}
			k.Swap(func(dek []byte) []byte { copy(shared[:], dek); return shared[:] })
		}},
		{"a key per handle", "another handle unwraps", func(k *flawed) {
			handles++
			k.Fake = NewFake(fmt.Sprint(handles), "v1")
		}},
		{"any size", "sizes", func(k *flawed) {
			k.wrap = func(context.Context, []byte) (kek.Wrapping, error) { return kek.Wrapping{}, nil }
		}},
		{"a size is refused with another class", "sizes", func(k *flawed) {
			k.Fail(kek.Unavailable, kek.OpWrap)
		}},
		{"not authenticated", "changed ciphertext", func(k *flawed) {
			k.wrap = func(_ context.Context, dek []byte) (kek.Wrapping, error) {
				return kek.Wrapping{Version: "v1", Algorithm: "none", Ciphertext: bytes.Clone(dek)}, nil
			}
			k.unwrap = func(_ context.Context, w kek.Wrapping) ([]byte, error) { return bytes.Clone(w.Ciphertext), nil }
		}},
		{"corrupt is called denied", "changed ciphertext", mapErrors(func(_ kek.Wrapping, err error) error {
			return &kek.Error{Class: kek.Denied, Op: kek.OpUnwrap, Err: err}
		})},
		{"the error holds the wrapped bytes", "changed ciphertext", mapErrors(func(w kek.Wrapping, _ error) error {
			return &kek.Error{Class: kek.Corrupt, Op: kek.OpUnwrap, Err: fmt.Errorf("cannot open %x", w.Ciphertext)}
		})},
		{"not a kek.Error", "changed ciphertext", mapErrors(func(kek.Wrapping, error) error { return errors.New("no") })},
		{"the wrong operation", "changed ciphertext", mapErrors(func(_ kek.Wrapping, err error) error {
			return &kek.Error{Class: kek.Corrupt, Op: kek.OpWrap, Err: err}
		})},
		{"the version is ignored", "another version", mapUnwrap(func(w *kek.Wrapping) { w.Version = "v1" })},
		{"the algorithm is ignored", "another algorithm", mapUnwrap(func(w *kek.Wrapping) { w.Algorithm = fakeAlgorithm })},
		{"the context is ignored", "cancelled context", func(k *flawed) {
			k.unwrap = func(_ context.Context, w kek.Wrapping) ([]byte, error) {
				return k.Fake.Unwrap(context.Background(), w)
			}
		}},
		{"a cancel is called denied", "cancelled context", func(k *flawed) {
			k.version = func(ctx context.Context) (string, error) {
				return "", &kek.Error{Class: kek.Denied, Op: kek.OpVersion, Err: ctx.Err()}
			}
		}},
		{"calls share state", "concurrent calls", func(k *flawed) {
			k.FailTimes(1, kek.Throttled, kek.OpUnwrap)
		}},
		{"no date", "dates", func(k *flawed) {
			k.created = func(context.Context, string) (time.Time, error) { return time.Time{}, nil }
		}},
		{"the date is now", "dates", func(k *flawed) {
			k.created = func(context.Context, string) (time.Time, error) { return time.Now(), nil }
		}},
		{"any version has a date", "dates", func(k *flawed) {
			k.created = func(context.Context, string) (time.Time, error) { return fakeEpoch, nil }
		}},
		{"close fails", "close", func(k *flawed) { k.close = func() error { return errors.New("no") } }},
		{"close does nothing", "close", func(k *flawed) { k.close = func() error { return nil } }},
	} {
		t.Run(tt.flaw, func(t *testing.T) {
			s := &subject{ctx: t.Context(), open: func() kek.KEK {
				k := &flawed{Fake: NewFake("fake", "v1")}
				tt.set(k)
				return k
			}}
			for _, c := range checks {
				if c.name == tt.check {
					if err := c.run(s); err == nil {
						t.Errorf("the check %q passes", c.name)
					}
					return
				}
			}
			t.Fatalf("there is no check %q", tt.check)
		})
	}
}
