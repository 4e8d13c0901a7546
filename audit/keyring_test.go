package audit_test

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/audit"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// TestKeyringWhileTheDiskIsFull has a keyring go on with what it has in memory while no
// line can be written, do nothing else, and do everything again when there is room.
func TestKeyringWhileTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: -1}
		log, err := audit.Open(audit.Config{Output: d, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		store := dektest.NewMemory()
		manager := func() *dek.Manager {
			m, err := dek.New(dek.Config{Store: store, Keyring: "test", KEKs: map[string]kek.KEK{"prod": log.KEK("prod", kektest.NewFake("prod", "1"))}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(m.Close)
			return m
		}
		m := manager()
		sealer, err := m.Sealer("prod", nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := sealer.Key(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d.room = 0
		if _, err := sealer.Key(t.Context()); err != nil {
			t.Errorf("sealing with a DEK in memory: %v", err)
		}
		if _, err := m.OpenKey(t.Context(), key.ID()); err != nil {
			t.Errorf("opening with a DEK in memory: %v", err)
		}
		other := manager()
		if _, err := other.OpenKey(t.Context(), key.ID()); !errors.Is(err, audit.ErrUnwritten) || kek.ClassOf(err) != kek.Unavailable {
			t.Errorf("opening with a DEK that is not: got %v, want ErrUnwritten, unavailable", err)
		}
		d.room = -1
		time.Sleep(time.Second) // on the bubble's clock: a failure is remembered for that long
		if _, err := other.OpenKey(t.Context(), key.ID()); err != nil {
			t.Errorf("opening when there is room: %v", err)
		}
	})
}
