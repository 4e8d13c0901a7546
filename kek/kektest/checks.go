package kektest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/etcdseal/etcdseal/kek"
)

func checkRoundTrip(s *subject) error {
	k, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	if w.Version == "" || w.Algorithm == "" || len(w.Ciphertext) < kek.DEKSize {
		return fmt.Errorf("what Wrap returns has the version %q, the algorithm %q and %d bytes, want some of each", w.Version, w.Algorithm, len(w.Ciphertext))
	}
	if bytes.Contains(w.Ciphertext, dek) {
		return errors.New("the wrapped bytes hold the DEK")
	}
	version, err := k.Version(s.ctx)
	if err != nil || version != w.Version {
		return fmt.Errorf("the version is %q, %v, Wrap used %q", version, err, w.Version)
	}
	got, err := k.Unwrap(s.ctx, w)
	return expectDEK("unwrapping what Wrap returned", got, dek, err)
}

func checkArguments(s *subject) error {
	k, dek := s.open(), newDEK()
	given := bytes.Clone(dek)
	w, err := k.Wrap(s.ctx, given)
	if err != nil {
		return err
	}
	if !bytes.Equal(given, dek) {
		return errors.New("the DEK given to Wrap was changed")
	}
	clear(given)
	before := clone(w)
	for range 2 {
		got, err := k.Unwrap(s.ctx, w)
		if err := expectDEK("unwrapping after the caller wiped the DEK", got, dek, err); err != nil {
			return err
		}
		if !bytes.Equal(before.Ciphertext, w.Ciphertext) || len(before.Annotations) != len(w.Annotations) {
			return errors.New("the wrapping given to Unwrap was changed")
		}
	}
	return nil
}

func checkResults(s *subject) error {
	k, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	first, err := k.Unwrap(s.ctx, w)
	if err := expectDEK("the first unwrapping", first, dek, err); err != nil {
		return err
	}
	clear(first)
	second, err := k.Unwrap(s.ctx, w)
	if err := expectDEK("the second, after the first result was wiped", second, dek, err); err != nil {
		return err
	}
	dek2 := newDEK()
	w2, err := k.Wrap(s.ctx, dek2)
	if err != nil {
		return err
	}
	other, err := k.Unwrap(s.ctx, w2)
	if err := expectDEK("unwrapping another DEK", other, dek2, err); err != nil {
		return err
	}
	return expectDEK("an older result, after more calls", second, dek, nil)
}

func checkAnotherHandle(s *subject) error {
	_, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	got, err := s.open().Unwrap(s.ctx, clone(w))
	return expectDEK("unwrapping by another handle", got, dek, err)
}

func checkSizes(s *subject) error {
	k := s.open()
	for _, size := range []int{0, 1, kek.DEKSize - 1, kek.DEKSize + 1} {
		dek := bytes.Repeat([]byte{0xd7}, size)
		_, err := k.Wrap(s.ctx, dek)
		if err := expectFailure(fmt.Sprintf("wrapping %d bytes", size), kek.OpWrap, err, dek); err != nil {
			return err
		}
		if class := kek.ClassOf(err); class != kek.Corrupt {
			return fmt.Errorf("wrapping %d bytes: the class is %q, want %q", size, class, kek.Corrupt)
		}
	}
	return nil
}

func checkChangedCiphertext(s *subject) error {
	k, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	flip := func(at int) []byte {
		b := bytes.Clone(w.Ciphertext)
		b[at] ^= 0x10
		return b
	}
	n := len(w.Ciphertext)
	for what, changed := range map[string][]byte{
		"first byte changed": flip(0), "middle byte changed": flip(n / 2), "last byte changed": flip(n - 1),
		"none": nil, "last byte missing": w.Ciphertext[:n-1], "first byte missing": w.Ciphertext[1:],
		"a byte more": append(bytes.Clone(w.Ciphertext), 0),
	} {
		bad := clone(w)
		bad.Ciphertext = changed
		_, err := k.Unwrap(s.ctx, bad)
		if err := expectFailure("wrapped bytes: "+what, kek.OpUnwrap, err, dek, w.Ciphertext); err != nil {
			return err
		}
		if kek.ClassOf(err).Denies() {
			return fmt.Errorf("wrapped bytes: %s: the class is %q, which is said of keys", what, kek.ClassOf(err))
		}
	}
	got, err := k.Unwrap(s.ctx, w)
	return expectDEK("unwrapping after all that", got, dek, err)
}

func checkAnotherVersion(s *subject) error {
	k, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	for _, version := range []string{"", w.Version + "0", strings.Repeat("f", len(w.Version)), "no such version"} {
		if version == w.Version {
			continue
		}
		bad := clone(w)
		bad.Version = version
		_, err := k.Unwrap(s.ctx, bad)
		if err := expectFailure(fmt.Sprintf("unwrapping by version %q", version), kek.OpUnwrap, err, dek, w.Ciphertext); err != nil {
			return err
		}
	}
	return nil
}

func checkAnotherAlgorithm(s *subject) error {
	k, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	for _, algorithm := range []string{"", "no such algorithm"} {
		bad := clone(w)
		bad.Algorithm = algorithm
		_, err := k.Unwrap(s.ctx, bad)
		if err := expectFailure(fmt.Sprintf("unwrapping by algorithm %q", algorithm), kek.OpUnwrap, err, dek, w.Ciphertext); err != nil {
			return err
		}
	}
	return nil
}

func checkCancelled(s *subject) error {
	k, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, wrapErr := k.Wrap(ctx, dek)
	_, unwrapErr := k.Unwrap(ctx, w)
	_, versionErr := k.Version(ctx)
	for op, err := range map[string]error{kek.OpWrap: wrapErr, kek.OpUnwrap: unwrapErr, kek.OpVersion: versionErr} {
		if err := expectFailure("with a cancelled context", op, err, dek, w.Ciphertext); err != nil {
			return err
		}
		if !errors.Is(err, context.Canceled) || kek.ClassOf(err) != kek.Unavailable {
			return fmt.Errorf("with a cancelled context: %v, want context.Canceled and the class %q", err, kek.Unavailable)
		}
	}
	return nil
}

func checkConcurrent(s *subject) error {
	k := s.open()
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			for range 4 {
				dek := newDEK()
				w, err := k.Wrap(s.ctx, dek)
				if err != nil {
					return err
				}
				got, err := k.Unwrap(s.ctx, w)
				if err := expectDEK("unwrapping among other calls", got, dek, err); err != nil {
					return err
				}
				if _, err := k.Version(s.ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func checkClose(s *subject) error {
	k, dek, w, err := s.wrap()
	if err != nil {
		return err
	}
	for range 2 {
		if err := k.Close(); err != nil {
			return fmt.Errorf("closing: %w", err)
		}
	}
	_, wrapErr := k.Wrap(s.ctx, dek)
	_, unwrapErr := k.Unwrap(s.ctx, w)
	_, versionErr := k.Version(s.ctx)
	for op, err := range map[string]error{kek.OpWrap: wrapErr, kek.OpUnwrap: unwrapErr, kek.OpVersion: versionErr} {
		if err := expectFailure("after Close", op, err, dek, w.Ciphertext); err != nil {
			return err
		}
		if kek.ClassOf(err) != kek.Unavailable {
			return fmt.Errorf("after Close: the class is %q, want %q", kek.ClassOf(err), kek.Unavailable)
		}
	}
	return nil
}

func checkDates(s *subject) error {
	k, _, w, err := s.wrap()
	if err != nil {
		return err
	}
	dated, ok := k.(kek.Dated)
	if !ok {
		return nil
	}
	first, err := dated.Created(s.ctx, w.Version)
	if err != nil || first.IsZero() {
		return fmt.Errorf("the version that wraps was made at %v, %w, want a time", first, err)
	}
	if again, err := dated.Created(s.ctx, w.Version); err != nil || !again.Equal(first) {
		return fmt.Errorf("asked again, it was made at %v, %w, not at %v", again, err, first)
	}
	for _, version := range []string{"", w.Version + "0", "no such version"} {
		_, err := dated.Created(s.ctx, version)
		if err := expectFailure(fmt.Sprintf("the date of version %q", version), kek.OpVersion, err); err != nil {
			return err
		}
		if kek.ClassOf(err) != kek.NotFound {
			return fmt.Errorf("the date of version %q: the class is %q, want %q", version, kek.ClassOf(err), kek.NotFound)
		}
	}
	return nil
}
