package difftest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

// space is the set of keys of a run: few enough that operations meet, chosen on and around the edges of the sealed prefix.
type space struct {
	sealed   string
	keys     []string // all of them
	plain    []string // those that are not sealed
	prefixes []string // of ranges; some sealed, some not, some both
}

// newSpace makes the keys. All of them sort above "/etcdseal/", the reserved prefix, so that no range of theirs that is deleted touches it.
func newSpace(sealed string) *space {
	bare := strings.TrimSuffix(sealed, "/")
	s := &space{sealed: sealed, prefixes: []string{sealed, sealed + "ns1/", sealed + "ns2/", bare, "/registry/", "/registry/configmaps/", "zoo/"}}
	for i := range 24 {
		s.keys = append(s.keys, fmt.Sprintf("%sns%d/s%02d", sealed, i%3, i))
		s.plain = append(s.plain, fmt.Sprintf("/registry/configmaps/ns%d/c%02d", i%3, i))
	}
	s.keys = append(s.keys, sealed, sealed+"\x00", sealed+"\xff\xfe", sealed+"ns1", sealed+strings.Repeat("long/", 200))
	s.plain = append(s.plain, bare, bare+"0", bare+".", bare+"\x00", bare+"x/y", "/registry/", "zoo/\x00\xff", "zoo/1", "zoo/2", "\xff\xff")
	s.keys = append(s.keys, s.plain...)
	return s
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func (s *space) key(r *rand.Rand) []byte      { return []byte(pick(r, s.keys)) }
func (s *space) plainKey(r *rand.Rand) []byte { return []byte(pick(r, s.plain)) }

// interval is a key and a range end: one key, a prefix, two keys in or out of order, everything from a key on, and, when wide, everything.
func (s *space) interval(r *rand.Rand, wide bool) (key, end []byte) {
	switch n := r.IntN(20); {
	case n < 7:
		return s.key(r), nil
	case n < 13:
		prefix := pick(r, s.prefixes)
		return []byte(prefix), endOf(prefix)
	case n < 16:
		return s.key(r), s.key(r)
	case n < 18:
		return s.key(r), []byte{0}
	case n < 19 && wide:
		return []byte{0}, []byte{0}
	default:
		return []byte("/registry/"), endOf("/registry/")
	}
}

// touchesSealed says whether a range holds sealed keys, as etcd understands the two fields.
func (s *space) touchesSealed(key, end []byte) bool {
	first, last := []byte(s.sealed), endOf(s.sealed)
	switch {
	case len(end) == 0:
		return bytes.HasPrefix(key, first)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(key, last) < 0
	default:
		return bytes.Compare(key, last) < 0 && bytes.Compare(end, first) > 0
	}
}

// endOf is the range end of a prefix whose last byte is not 0xff.
func endOf(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

// common are values that many keys have, and that comparisons find again.
var common = []string{"a", "b", "\x00", "ab", "\xff"}

// value is anything: empty, short, around the sizes of buffers, and things that look like the envelopes that the subject makes.
func (s *space) value(r *rand.Rand) []byte {
	switch r.IntN(14) {
	case 0:
		return nil
	case 12, 13:
		return []byte(pick(r, common))
	case 1:
		return append([]byte("\x00es\x01"), noise(r, r.IntN(80))...)
	case 2:
		return []byte("\x00es")[:1+r.IntN(3)]
	case 3:
		return noise(r, 16<<10+r.IntN(32<<10))
	case 4, 5:
		return noise(r, 1<<10)
	default:
		return noise(r, 1+r.IntN(64))
	}
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		x := r.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j] = byte(x)
			x >>= 8
		}
	}
	return b
}
