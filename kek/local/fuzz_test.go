package local

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzParseKey: parsing never panics, and what is accepted is exactly what
// marshalling gives back.
func FuzzParseKey(f *testing.F) {
	good := marshalKey(bytes.Repeat([]byte{0x5e, 7}, keySize/2))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(bytes.ToUpper(good))
	f.Add([]byte(fileHeader + strings.Repeat("0", 2*keySize) + "\n" + strings.Repeat("0", 2*versionSize) + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		key, err := parseKey(content)
		if (key == nil) == (err == nil) {
			t.Fatalf("parseKey returns %d bytes and %v", len(key), err)
		}
		if err == nil && !bytes.Equal(marshalKey(key), content) {
			t.Errorf("%q is accepted and marshals to %q", content, marshalKey(key))
		}
		// Any 32 bytes make a file that parses to them.
		if len(content) >= keySize {
			back, err := parseKey(marshalKey(content[:keySize]))
			if err != nil || !bytes.Equal(back, content[:keySize]) {
				t.Errorf("key %x: %x, %v", content[:keySize], back, err)
			}
		}
	})
}
