package dek

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Tombstone is what is left of a record that was removed for good. That it is there
// is all that counts: its DEK is never sealed with again and its record never put
// back, whatever the tombstone says.
type Tombstone struct {
	ID      envelope.ID
	Keyring string
	Buried  time.Time // UTC, whole seconds
}

type tombstoneJSON struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Keyring string    `json:"keyring"`
	Buried  time.Time `json:"buried"`
}

// Marshal returns the JSON of a tombstone.
func (t *Tombstone) Marshal() ([]byte, error) {
	if err := checkText("keyring", t.Keyring, MaxNameSize); err != nil {
		return nil, fmt.Errorf("encoding tombstone: %w", err)
	}
	if err := checkTime("buried", t.Buried); err != nil {
		return nil, fmt.Errorf("encoding tombstone: %w", err)
	}
	data, err := json.Marshal(tombstoneJSON{RecordVersion, t.ID.String(), t.Keyring, t.Buried})
	if err != nil {
		return nil, fmt.Errorf("encoding tombstone: %w", err)
	}
	return data, nil
}
