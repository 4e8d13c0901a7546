package dek

import (
	"bytes"
	"encoding/json"
	"errors"
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

// ParseTombstone reads what Marshal writes and nothing else. Only people need it: a
// tombstone counts whatever it says.
func ParseTombstone(data []byte) (*Tombstone, error) {
	var j tombstoneJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, errors.New("parsing tombstone: it is not a JSON object, or a member has the wrong type") // err quotes what it read
	}
	if j.Version != RecordVersion {
		return nil, fmt.Errorf("parsing tombstone: its format version %d is unknown, this etcdseal knows version %d only", j.Version, RecordVersion)
	}
	id, err := envelope.ParseID(j.ID)
	if err != nil {
		return nil, fmt.Errorf("parsing tombstone: %w", err)
	}
	t := &Tombstone{ID: id, Keyring: j.Keyring, Buried: j.Buried}
	again, err := t.Marshal()
	if err != nil {
		return nil, fmt.Errorf("parsing tombstone: %w", err)
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("parsing tombstone: it is not in the exact form of the format")
	}
	return t, nil
}
