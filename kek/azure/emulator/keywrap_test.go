package emulator

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"testing"
)

// The vectors are those of RFC 3394, sections 4.3 and 4.6: 256-bit keys.
func TestKeyWrapVectors(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block, err := aes.NewCipher(unhex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct{ plain, wrapped string }{
		{"00112233445566778899AABBCCDDEEFF", "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		{"00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F", "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	} {
		if got := wrapAES(block, unhex(v.plain)); !bytes.Equal(got, unhex(v.wrapped)) {
			t.Errorf("wrapping gives %X, want %s", got, v.wrapped)
		}
		got, ok := unwrapAES(block, unhex(v.wrapped))
		if !ok || !bytes.Equal(got, unhex(v.plain)) {
			t.Errorf("unwrapping gives %X, %v, want %s", got, ok, v.plain)
		}
		for i := range unhex(v.wrapped) {
			bad := unhex(v.wrapped)
			bad[i] ^= 1
			if _, ok := unwrapAES(block, bad); ok {
				t.Errorf("byte %d changed: it opens", i)
			}
		}
	}
}
