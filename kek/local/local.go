// Package local is a KEK in a file: for trials, for clusters without a vault, and
// as a recovery KEK that is kept offline.
//
// The key file and the wrappings are described in docs/FORMAT.md. A DEK is wrapped
// with AES-256-GCM under a key derived from the file's, with the KEK's version as
// additional data. So a wrapping is authentic, and belongs to one version.
//
// Whoever reads the file can open everything that it protects; etcdseal refuses
// to use one that others than its owner may read or write. The threat that it
// covers is a stolen disk, backup or snapshot of etcd. It does not cover somebody
// who is root where etcdseal runs.
package local

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/etcdseal/etcdseal/kek"
)

// Algorithm is the only value of Wrapping.Algorithm.
const Algorithm = "AES-256-GCM"

// Sizes of a wrapping, in bytes.
const (
	nonceSize    = 12
	tagSize      = 16
	wrappingSize = nonceSize + kek.DEKSize + tagSize
)

var errClosed = errors.New("the KEK is closed")

// Config says where the key is.
type Config struct {
	// Name is what errors call the KEK: its name in the configuration. May be
	// empty.
	Name string
	// KeyFile is the path of the key file. It may be a symbolic link, as
	// Kubernetes mounts secrets. The file must be a regular one that nobody
	// but its owner has a right to (mode 0600 or 0400).
	KeyFile string
}

// KEK is a key file's key. It is safe for concurrent use, and does no I/O after
// New: a key file that changes later is not noticed.
type KEK struct {
	name    string
	version string
	aead    atomic.Pointer[cipher.AEAD] // nil after Close
}

var _ kek.KEK = (*KEK)(nil)

// New reads the key file. The bytes of the key are wiped before it returns. The
// AES key schedule made from them cannot be, and lives until after Close; nor can
// what HKDF leaves in memory on the way.
//
// The errors name the file and what to do, and hold nothing of its content.
func New(cfg Config) (*KEK, error) {
	key, err := readKey(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := newAEAD(key)
	if err != nil {
		return nil, fmt.Errorf("reading key file %s: %w", cfg.KeyFile, err)
	}
	k := &KEK{name: cfg.Name, version: versionOf(key)}
	k.aead.Store(&aead)
	return k, nil
}

// Wrap encrypts a DEK. It fails for a DEK of another size than kek.DEKSize, when
// ctx has ended, and after Close.
func (k *KEK) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	aead, err := k.begin(ctx, kek.OpWrap)
	if err != nil {
		return kek.Wrapping{}, err
	}
	if len(dek) != kek.DEKSize {
		err := fmt.Errorf("the DEK has %d bytes, want %d", len(dek), kek.DEKSize)
		return kek.Wrapping{}, k.fail(kek.OpWrap, kek.Corrupt, k.version, err)
	}
	wrapped := aead.Seal(make([]byte, 0, wrappingSize), nil, dek, wrappingAAD(k.version))
	return kek.Wrapping{Version: k.version, Algorithm: Algorithm, Ciphertext: wrapped}, nil
}

// Unwrap decrypts a wrapping. A wrapping by another version, which is another key
// file's, is NotFound; one that this version did not make is Corrupt.
func (k *KEK) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	aead, err := k.begin(ctx, kek.OpUnwrap)
	if err != nil {
		return nil, err
	}
	kek.TraceFrom(ctx).KeyID = w.Version
	if w.Version != k.version {
		err := fmt.Errorf("the key file holds version %q", k.version)
		return nil, k.fail(kek.OpUnwrap, kek.NotFound, w.Version, err)
	}
	if w.Algorithm != Algorithm || len(w.Annotations) != 0 || len(w.Ciphertext) != wrappingSize {
		err := fmt.Errorf("the wrapping is no local KEK's: algorithm %.64q, %d annotations, %d bytes, want %q, none and %d",
			w.Algorithm, len(w.Annotations), len(w.Ciphertext), Algorithm, wrappingSize)
		return nil, k.fail(kek.OpUnwrap, kek.Corrupt, w.Version, err)
	}
	dek, err := aead.Open(make([]byte, 0, kek.DEKSize), nil, w.Ciphertext, wrappingAAD(k.version))
	if err != nil {
		return nil, k.fail(kek.OpUnwrap, kek.Corrupt, w.Version, errors.New("the wrapping does not authenticate"))
	}
	return dek, nil
}

// Version returns the version of the key file that New read: 16 hexadecimal
// digits, derived from the key.
func (k *KEK) Version(ctx context.Context) (string, error) {
	if _, err := k.begin(ctx, kek.OpVersion); err != nil {
		return "", err
	}
	return k.version, nil
}

// Close lets go of the key. It never fails.
func (k *KEK) Close() error {
	k.aead.Store(nil)
	return nil
}

// begin returns the cipher, unless ctx has ended or the KEK is closed. The file is all
// that is asked, so a Trace has no more than the version and one try.
func (k *KEK) begin(ctx context.Context, op string) (cipher.AEAD, error) {
	if err := ctx.Err(); err != nil {
		return nil, k.fail(op, kek.Unavailable, "", err)
	}
	aead := k.aead.Load()
	if aead == nil {
		return nil, k.fail(op, kek.Unavailable, "", errClosed)
	}
	*kek.TraceFrom(ctx) = kek.Trace{KeyID: k.version, Tries: 1}
	return *aead, nil
}

func (k *KEK) fail(op string, class kek.Class, version string, err error) error {
	return &kek.Error{Class: class, Op: op, KEK: k.name, Version: version, Err: err}
}

// wrappingAAD is the additional data of a wrapping: its purpose, a zero byte, and
// the version that made it. Nothing else builds it.
func wrappingAAD(version string) []byte {
	return []byte("etcdseal local kek wrapping v1\x00" + version)
}
