package dek

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// Errors of a Manager, to be told apart with errors.Is, beside ErrTombstoned and
// ErrStoreUnavailable. What a KEK said is a *kek.Error in the tree, for kek.ClassOf.
var (
	// ErrUnknownDEK says that the keyring has no record of a DEK, and had
	// none that this process knows of.
	ErrUnknownDEK = errors.New("the keyring has no record of it; if it is in a backup of etcd or of the keyring, put it back")
	// ErrBadRecord says that the record of a DEK cannot be used: it is
	// malformed, of an unknown version, or of another DEK or keyring.
	ErrBadRecord = errors.New("its record cannot be used; put it back as it was from a backup of etcd or of the keyring")
	// ErrMismatch says that a wrapping holds another DEK than its record
	// says: it was swapped, or the keyring's authentication key or name is
	// not the one that the DEK was made with.
	ErrMismatch = errors.New("the wrapping holds another DEK, or keyring.authKeyFile or keyring.name is not what it was made with; if its record was changed, put it back from a backup of etcd or of the keyring")
	// ErrNoKEK says that no KEK that can unwrap a DEK is configured.
	ErrNoKEK = errors.New("none of the KEKs of its record is configured")
	// ErrClosed says that the Manager was closed.
	ErrClosed = errors.New("the keyring is closed")
)

// Error is the failure to open or keep one DEK. Its cause is one of this package's
// errors, of kek or of context.
type Error struct {
	ID  envelope.ID
	Op  string // "opening", "storing"
	Err error
}

// Error names the DEK and the cause.
func (e *Error) Error() string { return fmt.Sprintf("%s DEK %s: %v", e.Op, e.ID, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// opening wraps what kept a DEK from being opened, once.
func opening(id envelope.ID, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e.ID == id {
		return err
	}
	return &Error{ID: id, Op: "opening", Err: err}
}

// joinKEKErrors makes one error of what the KEKs of one record said. The DEK is
// denied only if all deny it: so what says most about whether asking again can help
// comes first, where kek.ClassOf looks.
func joinKEKErrors(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	slices.SortStableFunc(errs, func(a, b error) int { return cmp.Compare(hope(a), hope(b)) })
	return errors.Join(errs...)
}

// hope orders KEK errors: lower is more likely to pass by itself.
func hope(err error) int {
	switch class := kek.ClassOf(err); {
	case class == kek.Corrupt:
		return 1
	case class.Denies():
		return 2
	default:
		return 0
	}
}

// passing reports whether an error is likely to be gone in a moment: a KEK that did
// not answer, in contrast to one that said no.
func passing(err error) bool {
	switch {
	case errors.Is(err, ErrUnknownDEK), errors.Is(err, ErrTombstoned), errors.Is(err, ErrBadRecord), errors.Is(err, ErrNoKEK):
		return false
	}
	return hope(err) == 0
}

// ofStore reports whether an error says nothing but that the store or the Manager
// was in the way, so that there is nothing to remember.
func ofStore(err error) bool {
	return errors.Is(err, ErrStoreUnavailable) || errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled)
}
