package kektest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
)

// wrapped is a Fake and one wrapping by it.
func wrapped(t *testing.T) (*Fake, []byte, kek.Wrapping) {
	t.Helper()
	f, dek := NewFake("fake", "v1"), newDEK()
	w, err := f.Wrap(t.Context(), dek)
	if err != nil {
		t.Fatal(err)
	}
	return f, dek, w
}

func wantClass(t *testing.T, what string, err error, want kek.Class) {
	t.Helper()
	if got := kek.ClassOf(err); got != want {
		t.Errorf("%s: %v, class %q, want %q", what, err, got, want)
	}
}

func TestFakeFails(t *testing.T) {
	f, _, w := wrapped(t)
	f.Fail(kek.Disabled, kek.OpUnwrap)
	for range 3 {
		_, err := f.Unwrap(t.Context(), w)
		wantClass(t, "while failing", err, kek.Disabled)
		if !errors.Is(err, ErrScripted) {
			t.Errorf("%v, want %v", err, ErrScripted)
		}
	}
	_, err := f.Version(t.Context())
	wantClass(t, "another operation", err, 0)
	f.Fail(0)
	_, err = f.Unwrap(t.Context(), w)
	wantClass(t, "afterwards", err, 0)

	f.FailTimes(2, kek.Throttled)
	for _, want := range []kek.Class{kek.Throttled, kek.Throttled, 0} {
		_, unwrapErr := f.Unwrap(t.Context(), w)
		_, versionErr := f.Version(t.Context())
		wantClass(t, "unwrapping", unwrapErr, want)
		wantClass(t, "version", versionErr, want)
	}
}

func TestFakeVersions(t *testing.T) {
	f, dek, old := wrapped(t)
	f.Rotate("v2")
	w, err := f.Wrap(t.Context(), dek)
	if version, _ := f.Version(t.Context()); err != nil || w.Version != "v2" || version != "v2" {
		t.Fatalf("after Rotate: %s, %v, version %q", w, err, version)
	}
	got, err := f.Unwrap(t.Context(), old)
	if err := expectDEK("the older version", got, dek, err); err != nil {
		t.Error(err)
	}
	f.FailVersion("v1", kek.NotFound)
	_, err = f.Unwrap(t.Context(), old)
	wantClass(t, "a version that was deleted", err, kek.NotFound)
	_, err = f.Unwrap(t.Context(), w)
	wantClass(t, "the other one", err, 0)
	f.FailVersion("v1", 0)
	_, err = f.Unwrap(t.Context(), old)
	wantClass(t, "the version is back", err, 0)
}

func TestFakeSwap(t *testing.T) {
	f, dek, w := wrapped(t)
	other := newDEK()
	f.Swap(func([]byte) []byte { return bytes.Clone(other) })
	if got, err := f.Unwrap(t.Context(), w); err != nil || !bytes.Equal(got, other) {
		t.Errorf("Unwrap returns the other DEK: %v, %v", bytes.Equal(got, other), err)
	}
	f.Swap(nil)
	got, err := f.Unwrap(t.Context(), w)
	if err := expectDEK("after Swap(nil)", got, dek, err); err != nil {
		t.Error(err)
	}
}

// Two Fakes of one name are one key, those of two names are two.
func TestFakeNames(t *testing.T) {
	_, dek, w := wrapped(t)
	got, err := NewFake("fake", "v9").Unwrap(t.Context(), w)
	if err := expectDEK("by a Fake of the same name", got, dek, err); err != nil {
		t.Error(err)
	}
	_, err = NewFake("other", "v1").Unwrap(t.Context(), w)
	wantClass(t, "by a Fake of another name", err, kek.Corrupt)
}

func TestFakeBlocks(t *testing.T) {
	f, _, w := wrapped(t)
	release := f.Block(kek.OpUnwrap)
	defer release()
	results := make(chan error, 3)
	cancelled, cancel := context.WithCancel(t.Context())
	for _, ctx := range []context.Context{t.Context(), t.Context(), cancelled} {
		go func() {
			_, err := f.Unwrap(ctx, w)
			results <- err
		}()
	}
	if err := f.AwaitBlocked(t.Context(), kek.OpUnwrap, 3); err != nil {
		t.Fatal(err)
	}
	if n := f.Calls(kek.OpUnwrap); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
	if _, err := f.Version(t.Context()); err != nil {
		t.Errorf("an operation that is not blocked: %v", err)
	}
	cancel()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("the call that was cancelled: %v, want %v", err, context.Canceled)
	}
	select {
	case err := <-results:
		t.Errorf("a call returned while blocked: %v", err)
	default:
	}
	release()
	release()
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("after the release: %v", err)
		}
	}
	if _, err := f.Unwrap(t.Context(), w); err != nil {
		t.Errorf("a call after the release: %v", err)
	}
	f.Block(kek.OpUnwrap)()
}

func TestFakeAwaits(t *testing.T) {
	f := NewFake("fake", "v1")
	done := make(chan error, 1)
	go func() { done <- f.AwaitCalls(t.Context(), kek.OpVersion, 2) }()
	for range 2 {
		select {
		case err := <-done:
			t.Fatalf("AwaitCalls returned before the second call: %v", err)
		default:
		}
		if _, err := f.Version(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("AwaitCalls: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.AwaitBlocked(ctx, kek.OpWrap, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitBlocked with a cancelled context: %v", err)
	}
}

func TestFakeDates(t *testing.T) {
	f := NewFake("fake", "v1")
	f.Rotate("v2")
	f.Rotate("v1")
	first, err1 := f.Created(t.Context(), "v1")
	second, err2 := f.Created(t.Context(), "v2")
	if err1 != nil || err2 != nil || !first.Before(second) {
		t.Errorf("v1 %v, %v; v2 %v, %v", first, err1, second, err2)
	}
}
