package emulator

import (
	"crypto/cipher"
	"crypto/sha1" // RSA-OAEP is defined with it
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// oaepHash is the hash of an RSA-OAEP algorithm of RFC 7518.
func oaepHash(algorithm string) hash.Hash {
	if algorithm == "RSA-OAEP-256" {
		return sha256.New()
	}
	return sha1.New()
}

// initial is the integrity check value of RFC 3394, section 2.2.3.1.
var initial = [8]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}

// wrapAES is AES Key Wrap (RFC 3394, section 2.2.1) of a multiple of 8 bytes.
func wrapAES(block cipher.Block, value []byte) []byte {
	n := len(value) / 8
	out := append(append(make([]byte, 0, len(value)+8), initial[:]...), value...)
	var b [16]byte
	copy(b[:8], initial[:])
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[8:], out[8*i:])
			block.Encrypt(b[:], b[:])
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])^uint64(n*j+i))
			copy(out[8*i:], b[8:])
		}
	}
	copy(out, b[:8])
	return out
}

// unwrapAES undoes wrapAES (RFC 3394, section 2.2.2).
func unwrapAES(block cipher.Block, wrapped []byte) ([]byte, bool) {
	if len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, false
	}
	n := len(wrapped)/8 - 1
	out := append([]byte(nil), wrapped...)
	var b [16]byte
	copy(b[:8], wrapped)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])^uint64(n*j+i))
			copy(b[8:], out[8*i:])
			block.Decrypt(b[:], b[:])
			copy(out[8*i:], b[8:])
		}
	}
	return out[8:], subtle.ConstantTimeCompare(b[:8], initial[:]) == 1
}
