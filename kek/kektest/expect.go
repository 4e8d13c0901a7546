package kektest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/etcdseal/etcdseal/kek"
)

func newDEK() []byte {
	dek := make([]byte, kek.DEKSize)
	_, _ = rand.Read(dek)
	return dek
}

// wrap opens a handle and wraps a new DEK.
func (s *subject) wrap() (k kek.KEK, dek []byte, w kek.Wrapping, err error) {
	k, dek = s.open(), newDEK()
	w, err = k.Wrap(s.ctx, bytes.Clone(dek))
	return k, dek, w, err
}

func clone(w kek.Wrapping) kek.Wrapping {
	w.Ciphertext = bytes.Clone(w.Ciphertext)
	if w.Annotations != nil {
		annotations := make(map[string][]byte, len(w.Annotations))
		for name, value := range w.Annotations {
			annotations[name] = bytes.Clone(value)
		}
		w.Annotations = annotations
	}
	return w
}

// expectDEK says whether Unwrap returned the DEK.
func expectDEK(what string, got, want []byte, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s: the result is not the DEK that was wrapped", what)
	}
	return nil
}

// leakSize is how many bytes of a secret make a leak. A few bytes can be in a text
// by chance, in the name of a version for instance.
const leakSize = 12

// expectFailure says whether a call failed as one must: with a kek.Error of its
// operation that holds neither the DEK nor the wrapped bytes.
func expectFailure(what, op string, err error, secrets ...[]byte) error {
	if err == nil {
		return fmt.Errorf("%s: no error", what)
	}
	var e *kek.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: the error is a %T, want a *kek.Error", what, err)
	}
	if e.Op != op || e.Class == 0 {
		return fmt.Errorf("%s: the error's operation is %q, class %q, want %q and a class", what, e.Op, e.Class, op)
	}
	for _, secret := range secrets {
		if len(secret) < leakSize {
			continue
		}
		part := secret[:leakSize]
		for _, text := range []string{
			string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)), strings.Trim(fmt.Sprint(part), "[]"),
			base64.StdEncoding.EncodeToString(part), base64.URLEncoding.EncodeToString(part),
		} {
			if strings.Contains(err.Error(), text) {
				return fmt.Errorf("%s: the error's text holds a DEK or wrapped bytes", what)
			}
		}
	}
	return nil
}
