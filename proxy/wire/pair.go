package wire

import (
	"encoding/binary"
	"math/bits"
)

// The tags of the fields of a key-value pair, each of one byte.
const (
	pairKey     = 1<<3 | 2
	pairVersion = 4 << 3 // create_revision and mod_revision stand before it
	pairValue   = 5<<3 | 2
	pairLease   = 6 << 3
)

// pairs reads the key-value pairs of a repeated field that follow each other, the
// first of them at s.Msg[at:], as long as they are written as encoders write them.
// It returns where it stopped: at itself if the first one is for the walk, which
// takes five times as long. Most of a large answer is such pairs.
func (s *Scan) pairs(fd *field, f *frame, at int) int {
	msg, tag := s.Msg[:f.place.end], s.Msg[at]
	for at < len(msg) && msg[at] == tag {
		start, end := shortField(msg, at, len(msg))
		if end < 0 || !s.pair(fd, f, span{int32(at), int32(at + 1), int32(start), int32(end)}) {
			break
		}
		at = end
	}
	return at
}

// pair reads one key-value pair. It reports false, and has done nothing, if the
// pair is for the walk.
func (s *Scan) pair(fd *field, f *frame, p span) bool {
	key, value, ok := plainPair(s.Msg[:f.place.end], int(p.data), int(p.end))
	if !ok || f.depth == maxDepth {
		return false
	}
	if value.data < value.end {
		v := s.newValue(value, s.part(key))
		v.Prev, v.parent, v.tag, v.holder = fd.prev, f.parent, pairValue, p
	}
	return true
}

// plainPair finds the key and the value of the key-value pair in msg[at:end], if
// its fields are in ascending order, each at most once, and nothing is longer than
// encoders write it.
func plainPair(msg []byte, at, end int) (key, value span, ok bool) {
	if at < end && msg[at] == pairKey {
		data, next := shortField(msg, at, end)
		key = span{data: int32(data), end: int32(next)}
		if at = next; at < 0 {
			return key, value, false
		}
	}
	at = shortNumbers(msg, at, end, pairKey, pairVersion)
	if at < end && msg[at] == pairValue {
		data, next := shortField(msg, at, end)
		value = span{int32(at), int32(at + 1), int32(data), int32(next)}
		if at = next; at == end || at < 0 {
			return key, value, at == end
		}
	}
	at = shortNumbers(msg, at, end, pairValue, pairLease)
	return key, value, at == end
}

// shortField returns where the data of a field with a tag of one byte at b[at] and
// a length of at most three begins and ends. The end is -1 if the length takes
// more, the field does not end before the limit or b nearly ends.
func shortField(b []byte, at, limit int) (data, end int) {
	if at+4 > len(b) {
		return 0, -1
	}
	w := int(binary.LittleEndian.Uint32(b[at : at+4 : at+4]))
	n, data := w>>8&0x7f, at+2
	if w&0x8000 != 0 {
		n, data = n|w>>9&(0x7f<<7), at+3
		if w&0x800000 != 0 {
			n, data = n|w>>10&(0x7f<<14), at+4
			if w&0x80000000 != 0 {
				return 0, -1
			}
		}
	}
	if n > limit-data {
		return 0, -1
	}
	return data, data + n
}

// shortNumbers returns where the fields of numbers end that begin at b[at], each
// with a tag of one byte above the one before it and up to max, and a number of at
// most seven. The limit is where they must end at the latest, less if it is
// passed; b goes on for a while.
func shortNumbers(b []byte, at, limit int, above, max byte) int {
	for at < limit && at+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[at : at+8 : at+8])
		tag := byte(w)
		last := ^w & 0x8080808080808000
		if tag&7 != 0 || tag <= above || tag > max || last == 0 {
			break
		}
		at += bits.TrailingZeros64(last)/8 + 1
		above = tag
	}
	return at
}
