package kek_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
)

func TestClassOf(t *testing.T) {
	cause := errors.New("cause")
	denied := &kek.Error{Class: kek.Denied, Err: cause}
	for _, tt := range []struct {
		name string
		err  error
		want kek.Class
	}{
		{"nil", nil, 0},
		{"an error of no KEK", cause, kek.Unavailable},
		{"a cancelled context", context.Canceled, kek.Unavailable},
		{"a deadline", fmt.Errorf("waiting: %w", context.DeadlineExceeded), kek.Unavailable},
		{"an Error", denied, kek.Denied},
		{"a wrapped Error", fmt.Errorf("opening: %w", denied), kek.Denied},
		{"a joined Error", errors.Join(cause, denied), kek.Denied},
		{"the outer Error counts", &kek.Error{Class: kek.Throttled, Err: denied}, kek.Throttled},
		{"no class", &kek.Error{Err: cause}, kek.Unavailable},
		{"no such class", &kek.Error{Class: 99}, kek.Unavailable},
		{"no such class either", &kek.Error{Class: -1}, kek.Unavailable},
		{"corrupt", &kek.Error{Class: kek.Corrupt}, kek.Corrupt},
	} {
		if got := kek.ClassOf(tt.err); got != tt.want {
			t.Errorf("%s: ClassOf = %q, want %q", tt.name, got, tt.want)
		}
	}
	if !errors.Is(denied, cause) {
		t.Error("an Error hides its cause")
	}
}

func TestClass(t *testing.T) {
	for _, tt := range []struct {
		class  kek.Class
		label  string
		denies bool
	}{
		{0, "ok", false},
		{kek.Denied, "denied", true},
		{kek.Disabled, "disabled", true},
		{kek.NotFound, "not_found", true},
		{kek.Throttled, "throttled", false},
		{kek.Unavailable, "unavailable", false},
		{kek.Corrupt, "corrupt", false},
		{kek.Corrupt + 1, "unavailable", false},
		{-1, "unavailable", false},
	} {
		if tt.class.String() != tt.label || tt.class.Denies() != tt.denies {
			t.Errorf("class %d: %q, denies: %v, want %q, %v", int(tt.class), tt.class, tt.class.Denies(), tt.label, tt.denies)
		}
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  kek.Error
		want string
	}{
		{kek.Error{Class: kek.NotFound, Op: kek.OpUnwrap, KEK: "prod", Version: "v3", Err: errors.New("no such key")},
			`unwrapping DEK by KEK "prod" version "v3": not found: no such key`},
		{kek.Error{Class: kek.Throttled, Op: kek.OpWrap, KEK: "prod"}, `wrapping DEK by KEK "prod": throttled`},
		{kek.Error{Class: kek.Denied, Op: kek.OpVersion, KEK: "prod"}, `asking for the version of KEK "prod": denied`},
		{kek.Error{Err: errors.New("x")}, `using KEK: unavailable: x`},
		{kek.Error{Class: kek.NotFound, Op: kek.OpUnwrap, Version: "a\nb" + strings.Repeat("c", 100)},
			`unwrapping DEK by KEK version "a\nb` + strings.Repeat("c", 61) + `": not found`},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
