package kek

import (
	"errors"
	"fmt"
	"strings"
)

// Class says why a KEK did not do what it was asked, in the terms on which
// etcdseal acts. The zero Class is success.
type Class int

// The classes. The first three are the key holder's no: sealing stops and cached
// DEKs are dropped. The next two are the want of an answer: cached DEKs serve on.
const (
	// Denied: the key may not be used for this: the caller lacks the
	// permission, or the key is not of a kind or made for it.
	Denied Class = iota + 1
	// Disabled: the key, or the version asked for, is switched off, or for
	// wrapping: has expired or is not valid yet.
	Disabled
	// NotFound: the key, or the version asked for, does not exist or was
	// deleted.
	NotFound
	// Throttled: the provider asks to be called less often.
	Throttled
	// Unavailable: no answer that says anything about the key: network,
	// server errors, failed login, a cancelled context, and all that is not
	// known to be something else.
	Unavailable
	// Corrupt: the key is there and does not open what it was given, or was
	// given what cannot be a DEK or a wrapping. Asking again does not help.
	Corrupt
)

// String returns the class as a metric's label: "ok" for the zero Class, else one
// of "denied", "disabled", "not_found", "throttled", "unavailable" and "corrupt".
func (c Class) String() string {
	switch c {
	case 0:
		return "ok"
	case Denied:
		return "denied"
	case Disabled:
		return "disabled"
	case NotFound:
		return "not_found"
	case Throttled:
		return "throttled"
	case Corrupt:
		return "corrupt"
	default:
		return "unavailable"
	}
}

// Denies reports whether the key holder says no, in contrast to not being heard.
// A corrupt wrapping is neither: it says nothing about the key. A no to wrapping is
// none to unwrapping: an expired key still unwraps.
func (c Class) Denies() bool {
	return c == Denied || c == Disabled || c == NotFound
}

// Error is the failure of a call to a KEK.
type Error struct {
	Class   Class
	Op      string // OpWrap, OpUnwrap or OpVersion
	KEK     string // the KEK's name in the configuration; may be empty
	Version string // the version of the KEK that was asked for, if one was
	Err     error  // the cause; it holds no DEK and no wrapped bytes
}

// Error says what was done with which KEK, the class, and the cause.
func (e *Error) Error() string {
	var b strings.Builder
	switch e.Op {
	case OpWrap:
		b.WriteString("wrapping DEK by KEK")
	case OpUnwrap:
		b.WriteString("unwrapping DEK by KEK")
	case OpVersion:
		b.WriteString("asking for the version of KEK")
	default:
		b.WriteString("using KEK")
	}
	if e.KEK != "" {
		fmt.Fprintf(&b, " %q", e.KEK)
	}
	if e.Version != "" {
		fmt.Fprintf(&b, " version %.64q", e.Version)
	}
	fmt.Fprintf(&b, ": %s", strings.ReplaceAll(ClassOf(e).String(), "_", " "))
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the first *Error in err's tree. Every other error
// is Unavailable, context errors included, as is an Error without a class: what
// is not understood never counts as the key holder's no. ClassOf(nil) is the zero
// Class.
func ClassOf(err error) Class {
	if err == nil {
		return 0
	}
	var e *Error
	if !errors.As(err, &e) || e.Class < Denied || e.Class > Corrupt {
		return Unavailable
	}
	return e.Class
}
