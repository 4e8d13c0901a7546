package envelope

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// The info strings of the two derivations from a DEK. Each is used for one
// purpose, which keeps the identifier and the AES key independent of each other.
const (
	infoID  = "etcdseal dek id v1"
	infoAES = "etcdseal aes-256-gcm v1"
)

// DeriveID returns the identifier of a DEK in a keyring: the first IDSize bytes
// of HKDF-SHA-256(secret = dek, salt = authKey, info = "etcdseal dek id v1" 00
// keyring). A nil or empty authKey is no salt.
//
// The identifier commits to the DEK, so a record whose wrapping was swapped for
// another DEK's is found out; to the keyring's name, so a record of another
// cluster or tenant is; and to authKey, if there is one, so that whoever can wrap
// a DEK but has no authKey cannot make a record that is accepted.
//
// A dek that is not KeySize bytes long is no DEK: its identifier is the zero ID,
// and NewKey refuses it. The comparison of identifiers needs no constant time,
// for they are public.
func DeriveID(dek, authKey []byte, keyring string) ID {
	if len(dek) != KeySize {
		return ID{}
	}
	return ID(derive(dek, authKey, infoID+"\x00"+keyring, IDSize))
}

// deriveAES returns the AES-256 key of a DEK, HKDF-SHA-256(secret = dek, no salt,
// info = "etcdseal aes-256-gcm v1"). The caller wipes it.
func deriveAES(dek []byte) []byte {
	return derive(dek, nil, infoAES, KeySize)
}

// derive is HKDF-SHA-256 (RFC 5869) of a secret of KeySize bytes. Neither of the
// reasons for which the standard library refuses, a short secret in FIPS mode
// and an output of more than 255 hashes, can arise.
func derive(secret, salt []byte, info string, size int) []byte {
	out, err := hkdf.Key(sha256.New, secret, salt, info, size)
	if err != nil {
		panic(fmt.Sprintf("envelope: deriving %d bytes from a secret of %d: %v", size, len(secret), err))
	}
	return out
}
