package envelope_test

import (
	"fmt"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

var benchSizes = []int{64, 1 << 10, 16 << 10, 1 << 20}

func BenchmarkSeal(b *testing.B) {
	key, etcdKey := testKey(b, 1), []byte("/registry/secrets/namespace/name")
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			plaintext := pattern(size)
			buf := make([]byte, 0, size+envelope.Overhead)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				buf = key.Seal(buf[:0], etcdKey, plaintext)
			}
		})
	}
}

// BenchmarkOpen includes a copy of the envelope, for Open destroys it.
func BenchmarkOpen(b *testing.B) {
	key, etcdKey := testKey(b, 1), []byte("/registry/secrets/namespace/name")
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			env := key.Seal(nil, etcdKey, pattern(size))
			buf := make([]byte, len(env))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, env)
				if _, err := key.Open(buf, etcdKey); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewKey(b *testing.B) {
	dek := testDEK(1)
	id := envelope.DeriveID(dek, nil, "ring")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := envelope.NewKey(id, dek); err != nil {
			b.Fatal(err)
		}
	}
}
