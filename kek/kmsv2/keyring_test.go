package kmsv2

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/kek"
)

// keyring has a keyring seal once a minute for a while, with a plugin that before each
// is told which minute it is, and returns the records.
func (b *bubble) keyring(minutes int, tell func(minute int)) []*dek.Record {
	b.Helper()
	store := dektest.NewMemory()
	m, err := dek.New(dek.Config{Store: store, Keyring: "test", KEKs: map[string]kek.KEK{"plugin": b.kek}, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = m.Run(ctx) }) // its end is the context's
	sealer, err := m.Sealer("plugin", nil)
	if err != nil {
		b.Fatal(err)
	}
	for minute := range minutes {
		tell(minute)
		if _, err := sealer.Key(ctx); err != nil {
			b.Errorf("minute %d: %v", minute, err)
		}
		b.pass(time.Minute)
	}
	cancel()
	running.Wait()
	m.Close()
	var records []*dek.Record
	for _, stored := range store.Records() {
		r, err := dek.ParseRecord(stored.Data)
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, r)
	}
	if err := store.Close(); err != nil {
		b.Error(err)
	}
	return records
}

// A plugin's rotation makes a keyring seal with another DEK, wrapped by the new key; one
// that goes back and forth does not make it grow without end, nor stops it from sealing.
func TestKeyring(t *testing.T) {
	inBubble(t, func(b *bubble) {
		records := b.keyring(60, func(minute int) {
			if minute == 30 {
				b.Rotate("key-2")
			}
		})
		versions := map[string]int{}
		for _, r := range records {
			versions[r.Wrappings[0].Version]++
		}
		if len(records) != 2 || versions["key-1"] != 1 || versions["key-2"] != 1 {
			b.Errorf("a rotation: records by %v", versions)
		}
	})
	for _, period := range []int{1, 2, 5, 30} {
		inBubble(t, func(b *bubble) {
			const minutes = 1000
			records := b.keyring(minutes, func(minute int) { b.Rotate([]string{"key-1", "key-2"}[minute/period%2]) })
			if limit := minutes/rest + 6; len(records) > limit {
				b.Errorf("a flip each %d minutes: %d records after %d minutes, want at most %d", period, len(records), minutes, limit)
			}
		})
	}
}
