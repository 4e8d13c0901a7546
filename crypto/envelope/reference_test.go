package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// This file is a second implementation, written from docs/FORMAT.md alone: the
// derivations by HMAC, GCM with a nonce of its own. It shares no constant with
// the package, so an accidental change of the format on one side shows.

// referenceHKDF is RFC 5869 for at most one block of output.
func referenceHKDF(secret, salt, info []byte, size int) []byte {
	if len(salt) == 0 {
		salt = make([]byte, 32)
	}
	extract := hmac.New(sha256.New, salt)
	extract.Write(secret)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	expand.Write(info)
	expand.Write([]byte{1})
	return expand.Sum(nil)[:size]
}

func referenceID(dek, authKey []byte, keyring string) (id envelope.ID) {
	fips140.WithoutEnforcement(func() {
		info := append([]byte("etcdseal dek id v1\x00"), keyring...)
		id = envelope.ID(referenceHKDF(dek, authKey, info, 16))
	})
	return id
}

func referenceGCM(dek []byte) cipher.AEAD {
	block, err := aes.NewCipher(referenceHKDF(dek, nil, []byte("etcdseal aes-256-gcm v1"), 32))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func referenceSeal(dek []byte, id envelope.ID, nonce [12]byte, etcdKey, plaintext []byte) (env []byte) {
	// FIPS mode has no GCM with a given nonce.
	fips140.WithoutEnforcement(func() {
		head := append([]byte{0x00, 0x65, 0x73, 0x01}, id[:]...)
		aad := append(bytes.Clone(head), etcdKey...)
		env = append(head, nonce[:]...)
		env = referenceGCM(dek).Seal(env, nonce[:], plaintext, aad)
	})
	return env
}

func referenceOpen(dek, env, etcdKey []byte) (plaintext []byte, err error) {
	if len(env) < 48 || !bytes.Equal(env[:4], []byte{0x00, 0x65, 0x73, 0x01}) {
		return nil, errors.New("not an envelope of version 1")
	}
	fips140.WithoutEnforcement(func() {
		aad := append(bytes.Clone(env[:20]), etcdKey...)
		plaintext, err = referenceGCM(dek).Open(nil, env[20:32], env[32:], aad)
	})
	return plaintext, err
}

// Each implementation opens what the other sealed.
func TestReferenceImplementation(t *testing.T) {
	dek, etcdKey := testDEK(7), []byte("/registry/secrets/ns/name")
	authKey := bytes.Repeat([]byte{9}, 40)
	id := envelope.DeriveID(dek, authKey, "ring")
	if want := referenceID(dek, authKey, "ring"); id != want {
		t.Fatalf("DeriveID = %s, the reference says %s", id, want)
	}
	key := newKey(t, id, dek)
	for _, size := range []int{0, 1, 15, 16, 17, 1000, 70_000} {
		plaintext := pattern(size)
		sealed := key.Seal(nil, etcdKey, plaintext)
		got, err := referenceOpen(dek, sealed, etcdKey)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("size %d: the reference opens what Seal made: %v, plaintext equal: %v", size, err, bytes.Equal(got, plaintext))
		}
		got, err = key.Open(referenceSeal(dek, id, [12]byte{1, 2, 3}, etcdKey, plaintext), etcdKey)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("size %d: Open of what the reference sealed: %v, plaintext equal: %v", size, err, bytes.Equal(got, plaintext))
		}
	}
}
