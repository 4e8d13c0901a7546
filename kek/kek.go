// Package kek says what etcdseal asks of a key-encryption key: to wrap and unwrap
// 32 bytes, and to say why when it does not.
//
// A KEK is the key that protects every DEK. It lies in a vault, behind a KMS
// plugin or in a file; the sub-packages implement it for each, kek/kektest holds
// the tests that all of them pass. The package guarantees nothing about the
// secrecy of a wrapping, which is the provider's; and a wrapping need not be
// authentic: anybody may wrap with an RSA public key. That is why a DEK's
// identifier commits to its bytes (crypto/envelope) and is compared after every
// unwrap.
package kek

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// DEKSize is the size of what is wrapped, in bytes.
const DEKSize = 32

// The values of Error.Op, one for each method that can fail for a reason of the
// KEK's.
const (
	OpWrap    = "wrap"
	OpUnwrap  = "unwrap"
	OpVersion = "version"
)

// KEK is one key-encryption key with all its versions. Its name is the
// configuration's. All methods are safe for concurrent use; their errors are
// *Error, and none of them holds a DEK or wrapped bytes.
type KEK interface {
	// Wrap encrypts a DEK of DEKSize bytes by the current version. It keeps
	// nothing of dek and does not change it.
	Wrap(ctx context.Context, dek []byte) (Wrapping, error)

	// Unwrap decrypts a wrapping by exactly the version that it names, and
	// fails if that version cannot be had. The result has DEKSize bytes and
	// is the caller's, who wipes it; w is left as it was.
	Unwrap(ctx context.Context, w Wrapping) ([]byte, error)

	// Version says which version Wrap would use now. A KEK has another one
	// after it was rotated. It is cheap to call often: a provider that has to
	// ask somebody does so at intervals of its own, and takes another version
	// for the current one only after it was told of it twice. An error says
	// that the provider asked, just now, and was not told; Wrap goes on with
	// the version that it has, if there is one.
	Version(ctx context.Context) (string, error)

	// Close gives back what the KEK holds. Calls after it fail as
	// Unavailable; closing again does nothing.
	Close() error
}

// Dated is a KEK that can say when its versions were made, so that a process can
// tell an older version than its own from one that it has not heard of yet. Not
// every provider can.
type Dated interface {
	KEK
	// Created says when a version was made. The error is an *Error of
	// OpVersion: NotFound for a version that the KEK does not have.
	Created(ctx context.Context, version string) (time.Time, error)
}

// Wrapping is a DEK encrypted by one version of a KEK. It holds everything that
// Unwrap needs and nothing of where the KEK is, which is the configuration's
// alone to say.
type Wrapping struct {
	// Version names the version of the KEK, in the provider's terms.
	Version string
	// Algorithm names how Ciphertext was made, in the provider's terms.
	Algorithm string
	// Ciphertext is the wrapped DEK.
	Ciphertext []byte
	// Annotations are what a provider wants to have back with Ciphertext
	// (KMS v2 has such a field). Nil for those that need none. They are not
	// secret.
	Annotations map[string][]byte
}

// String names the version and the algorithm, never the wrapped bytes.
func (w Wrapping) String() string {
	return fmt.Sprintf("wrapping by version %.64q, %.64q", w.Version, w.Algorithm)
}

// Format prints String for every verb, so that no wrapped bytes can get into an
// error or a log.
func (w Wrapping) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, w.String()) }

// LogValue keeps the wrapped bytes out of structured logs.
func (w Wrapping) LogValue() slog.Value { return slog.StringValue(w.String()) }
