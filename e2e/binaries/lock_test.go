package binaries

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// Who waits for another build can be interrupted, and gets the lock when it is free.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lock(interrupted, path); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a lock that is held: %v, want an interruption", err)
	}
	unlock()
	unlock, err = lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
