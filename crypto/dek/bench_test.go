package dek_test

import (
	"testing"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// sealing returns a Manager with the default clock and a DEK that seals.
func sealing(t testing.TB) (*dek.Manager, *dek.Sealer) {
	t.Helper()
	m, err := dek.New(dek.Config{
		Store: dektest.NewMemory(), Keyring: keyring, KEKs: map[string]kek.KEK{main: kektest.NewFake(main, "1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	s, err := m.Sealer(main, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Key(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m, s
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	m, s := sealing(t)
	key, _ := s.TryKey()
	if n := testing.AllocsPerRun(100, func() { s.TryKey() }); n != 0 {
		t.Errorf("TryKey: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { m.TryOpen(key.ID()) }); n != 0 {
		t.Errorf("TryOpen: %v allocations", n)
	}
}

func BenchmarkTryKey(b *testing.B) {
	_, s := sealing(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.TryKey(); !ok {
			b.Fatal("no DEK")
		}
	}
}

func BenchmarkTryKeyParallel(b *testing.B) {
	_, s := sealing(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.TryKey()
		}
	})
}

func BenchmarkTryOpen(b *testing.B) {
	m, s := sealing(b)
	key, _ := s.TryKey()
	id := key.ID()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := m.TryOpen(id); !ok {
			b.Fatal("no DEK")
		}
	}
}

func BenchmarkTryOpenParallel(b *testing.B) {
	m, s := sealing(b)
	key, _ := s.TryKey()
	id := key.ID()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.TryOpen(id)
		}
	})
}
