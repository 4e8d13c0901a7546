// Package envelope is the format of the values that etcdseal stores in etcd: it
// derives a DEK's identifier, seals plaintexts into envelopes, recognises them
// and opens them again.
//
// The format is permanent and written down in docs/FORMAT.md:
//
//	offset  size  field
//	0       3     magic 00 65 73
//	3       1     format version 01
//	4       16    DEK id
//	20      12    nonce, random
//	32      n     ciphertext, as long as the plaintext
//	32+n    16    tag
//
// An envelope is AES-256-GCM (NIST SP 800-38D) under a key that HKDF-SHA-256
// (RFC 5869) makes from the DEK, with the first 20 bytes and the etcd key as
// additional data. So whoever can write to etcd, but has no DEK, cannot forge or
// change a value, nor move one to another etcd key, nor pass it off as another
// DEK's. They can still delete a value, and put an older envelope of the same
// etcd key back: nothing here prevents a replay. The length of the plaintext is
// not hidden.
//
// The cryptography is the standard library's alone and works under
// GODEBUG=fips140=only.
package envelope

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Version is the format version that Seal writes and the only one that Open
// reads.
const Version = 1

// Sizes of the format, in bytes.
const (
	// IDSize is the size of a DEK's identifier.
	IDSize = 16
	// KeySize is the size of a DEK.
	KeySize = 32
	// Overhead is what an envelope is longer than its plaintext, and so also
	// the size of the smallest envelope.
	Overhead = headerSize + nonceSize + tagSize

	magic      = "\x00es"
	headerSize = len(magic) + 1 + IDSize
	nonceSize  = 12
	tagSize    = 16
)

var (
	// ErrNotEnvelope says that a value does not begin with the magic: it is
	// plaintext.
	ErrNotEnvelope = errors.New("the value is not an etcdseal envelope")
	// ErrTruncated says that a value begins as an envelope and ends before
	// one can.
	ErrTruncated = errors.New("the envelope is truncated")
	// ErrAuthentication says that an envelope was not made by this DEK for
	// this etcd key, or was changed since.
	ErrAuthentication = errors.New("the envelope does not authenticate: it was changed, or made for another key of etcd")
)

// VersionError says that a value is an envelope of a format version that this
// package does not know.
type VersionError struct {
	Version byte // as the value has it
}

// Error names the version.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the envelope's format version %d is unknown, this etcdseal knows version %d only", e.Version, Version)
}

// WrongKeyError says that an envelope was given to a Key that did not seal it.
type WrongKeyError struct {
	Envelope ID // of the DEK that the envelope names
	Key      ID // of the DEK that was to open it
}

// Error names both DEKs.
func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("the envelope was sealed with DEK %s, not with %s", e.Envelope, e.Key)
}

// ID identifies a DEK and commits to its bytes, see DeriveID. It is no secret.
type ID [IDSize]byte

// String returns the identifier as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID is the inverse of String. It accepts nothing but 32 lower-case
// hexadecimal digits, so that an identifier has one spelling only.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != hex.EncodedLen(IDSize) {
		return ID{}, fmt.Errorf("parsing DEK id: it has %d characters, want %d hexadecimal digits", len(s), hex.EncodedLen(IDSize))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, errors.New("parsing DEK id: it has characters that are not lower-case hexadecimal digits")
	}
	return id, nil
}

// Is reports whether a value claims to be an envelope. The magic alone decides:
// an envelope of another version, a truncated or a forged one is one too, and
// it is for Parse and Open to refuse it.
func Is(value []byte) bool {
	return len(value) >= len(magic) && string(value[:len(magic)]) == magic
}

// Parse returns the identifier of the DEK that sealed a value. It reads no
// secret and proves nothing: only Open authenticates.
//
// The errors are ErrNotEnvelope, a *VersionError for a version other than
// Version whatever the length, and ErrTruncated for a value that has the magic
// but ends before a tag can.
func Parse(value []byte) (ID, error) {
	if !Is(value) {
		return ID{}, ErrNotEnvelope
	}
	if len(value) > len(magic) && value[len(magic)] != Version {
		return ID{}, &VersionError{Version: value[len(magic)]}
	}
	if len(value) < Overhead {
		return ID{}, ErrTruncated
	}
	return ID(value[len(magic)+1 : headerSize]), nil
}

// header is the part of an envelope that is the same for every value that one
// DEK seals.
func header(id ID) [headerSize]byte {
	var h [headerSize]byte
	n := copy(h[:], magic)
	h[n] = Version
	copy(h[n+1:], id[:])
	return h
}

// appendAAD appends the additional authenticated data of an envelope to dst: its
// header (magic, version, DEK id), which has a fixed size, then the etcd key.
// Nothing else builds it.
func appendAAD(dst []byte, header *[headerSize]byte, etcdKey []byte) []byte {
	dst = append(dst, header[:]...)
	return append(dst, etcdKey...)
}
