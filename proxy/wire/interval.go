package wire

import "bytes"

// A key range of etcd's API is written as a key and an end:
//
//	key  end           keys
//	k    (empty)       k alone
//	k    "\x00"        k and every key after it; for k = "\x00" every key there is
//	k    e > k         from k up to but without e
//	k    e <= k        none
//
// An empty key with an empty end is refused by etcd and is no key here; before
// any other end it stands before all keys.

// Contains tells whether a key is in the key range.
func Contains(key, end, k []byte) bool {
	if len(end) == 0 {
		return len(k) > 0 && bytes.Equal(key, k)
	}
	return len(k) > 0 && bytes.Compare(key, k) <= 0 && (toLast(end) || bytes.Compare(k, end) < 0)
}

// Overlaps tells whether a key that begins with the prefix can be in the key
// range. An empty prefix stands for all keys.
func Overlaps(key, end, prefix []byte) bool {
	if len(end) == 0 {
		return len(key) > 0 && bytes.HasPrefix(key, prefix)
	}
	if !toLast(end) && bytes.Compare(key, end) >= 0 {
		return false
	}
	if bytes.HasPrefix(key, prefix) {
		return true
	}
	// The keys with the prefix are an interval that begins with the prefix
	// itself: the range begins before it and reaches into it, or does not.
	return bytes.Compare(key, prefix) < 0 && (toLast(end) || bytes.Compare(prefix, end) < 0)
}

// toLast tells whether the end means that the range has none.
func toLast(end []byte) bool { return len(end) == 1 && end[0] == 0 }
