package wire

import (
	"bytes"
	"testing"
)

// universe returns all byte strings of up to n bytes of a small alphabet that
// holds the smallest, the greatest and neighbouring bytes.
func universe(n int) [][]byte {
	list := [][]byte{{}}
	for from := 0; n > 0; n-- {
		end := len(list)
		for _, s := range list[from:end] {
			for _, c := range []byte{0, 'a', 'b', 0xff} {
				list = append(list, append(bytes.Clone(s), c))
			}
		}
		from = end
	}
	return list
}

// inRange is the model: etcd's interval as its server compares keys. An end of
// one zero byte is none (mkGteRange), an absent end is the key alone.
func inRange(key, end, k []byte) bool {
	switch {
	case len(k) == 0:
		return false
	case len(end) == 0:
		return bytes.Equal(k, key)
	case bytes.Equal(end, []byte{0}):
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// TestIntervals compares with brute force over all keys of up to four bytes. For
// bounds and prefixes of up to two that is enough to find a witness wherever
// there is one.
func TestIntervals(t *testing.T) {
	keys, bounds := universe(4), universe(2)
	for _, key := range bounds {
		for _, end := range bounds {
			in := map[string]bool{} // the prefixes of the keys in the range
			for _, k := range keys {
				want := inRange(key, end, k)
				if got := Contains(key, end, k); got != want {
					t.Fatalf("Contains(%q, %q, %q) = %v", key, end, k, got)
				}
				for n := 0; want && n <= min(2, len(k)); n++ {
					in[string(k[:n])] = true
				}
			}
			for _, prefix := range bounds {
				if got := Overlaps(key, end, prefix); got != in[string(prefix)] {
					t.Fatalf("Overlaps(%q, %q, %q) = %v", key, end, prefix, got)
				}
			}
		}
	}
}

func TestOverlaps(t *testing.T) {
	const prefix = "/etcdseal/"
	for _, c := range []struct {
		key, end string
		want     bool
	}{
		{"/etcdseal/", "", true},
		{"/etcdseal/x", "", true},
		{"/etcdseal", "", false},
		{"/etcdseal0", "", false},
		{"", "", false},
		{"\x00", "\x00", true},
		{"", "\x00", true},
		{"a", "\x00", false},
		{"/etcdseal/zz", "\x00", true},
		{"/etcdseal0", "\x00", false},
		{"/", "0", true},
		{"/", "/etcdseal/", false},
		{"/", "/etcdseal/\x00", true},
		{"/etcdseal/b", "/etcdseal/c", true},
		{"/etcdseal/c", "/etcdseal/b", false},
		{"/etcdseal/c", "/etcdseal/c", false},
		{"/z", "/a", false},
		{"/a", "/a", false},
	} {
		if got := Overlaps([]byte(c.key), []byte(c.end), []byte(prefix)); got != c.want {
			t.Errorf("Overlaps(%q, %q, %q) = %v, want %v", c.key, c.end, prefix, got, c.want)
		}
	}
}
