package dek

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// RecordVersion is the version of the record format that this package writes, and
// the only one that it reads.
const RecordVersion = 1

// Limits of a record. Sizes are in bytes. They are far above what any KEK needs and
// keep a planted record from costing memory.
const (
	MaxRecordSize     = 64 << 10 // a whole record
	MaxWrappings      = 16       // in one record
	MaxNameSize       = 256      // names of keyrings and KEKs, algorithms, names of annotations
	MaxVersionSize    = 1 << 10  // a KEK's version
	MaxCiphertextSize = 16 << 10 // wrapped bytes, and the value of one annotation
	MaxAnnotations    = 32       // of one wrapping
	MaxDropped        = 64       // wrappings that one record once had and that are remembered
)

// Record is what the keyring holds of one DEK: everything that is needed to open
// the values under it, but for a KEK. It is stored as JSON, see Marshal and
// docs/FORMAT.md. A Record is not changed once it was parsed or stored.
type Record struct {
	ID        envelope.ID // commits to the DEK, the keyring's name and its authentication key
	Keyring   string      // the name of the keyring that the DEK was made for
	Created   time.Time   // UTC, whole seconds
	SealUntil time.Time   // UTC, whole seconds; nobody seals with the DEK from then on
	Wrappings []Wrapping  // at least one; any one is enough to open
	// Dropped are the wrappings that the record had once, the oldest first, at most one
	// for each version of a KEK: backups from before may hold nothing else.
	Dropped []Dropped
	// Claim is of the process that is rewrapping the DEK, nil if there is none.
	Claim *Claim
}

// Dropped is what is left of a wrapping that was removed from a record.
type Dropped struct {
	KEK     string    `json:"kek"`
	Version string    `json:"version"`
	At      time.Time `json:"at"` // UTC, whole seconds: backups from before may need it
}

// Claim keeps other processes from asking KEKs for what one is asking for already. It
// protects nothing else: a record is written by comparing its revision, claimed or not.
type Claim struct {
	By    string    `json:"by"`    // random
	Until time.Time `json:"until"` // UTC, whole seconds; the claim means nothing from then on
}

// Wrapping is the DEK encrypted by one version of one KEK.
type Wrapping struct {
	KEK         string            `json:"kek"` // the KEK's name in the configuration; never where it is
	Version     string            `json:"version"`
	Algorithm   string            `json:"algorithm"`
	Ciphertext  []byte            `json:"ciphertext"`
	Annotations map[string][]byte `json:"annotations,omitempty"`
	// Wrapped is when, UTC in whole seconds, if that was not when the DEK was made.
	Wrapped time.Time `json:"wrapped,omitzero"`
}

// recordJSON is a Record's members in the order in which they are written.
type recordJSON struct {
	Version   int        `json:"version"`
	ID        string     `json:"id"`
	Keyring   string     `json:"keyring"`
	Created   time.Time  `json:"created"`
	SealUntil time.Time  `json:"sealUntil"`
	Wrappings []Wrapping `json:"wrappings"`
	Dropped   []Dropped  `json:"dropped,omitempty"`
	Claim     *Claim     `json:"claim,omitempty"`
}

// RecordVersionError says that a record is of a format version that this package
// does not know. Such a record is left alone.
type RecordVersionError struct {
	Version int // as the record has it
}

// Error names the version.
func (e *RecordVersionError) Error() string {
	return fmt.Sprintf("the record's format version %d is unknown, this etcdseal knows version %d only", e.Version, RecordVersion)
}

// Marshal returns the one encoding of a record: JSON without white space, members
// in the order of the format, strings escaped only where JSON demands it. The error
// says what is not allowed in a record.
func (r *Record) Marshal() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("encoding record: %w", err)
	}
	data, err := encode(recordJSON{RecordVersion, r.ID.String(), r.Keyring, r.Created, r.SealUntil, r.Wrappings, r.Dropped, r.Claim})
	if err != nil {
		return nil, fmt.Errorf("encoding record: %w", err)
	}
	if len(data) > MaxRecordSize {
		return nil, fmt.Errorf("encoding record: it has %d bytes, %d are allowed", len(data), MaxRecordSize)
	}
	return data, nil
}

// ParseRecord reads the encoding that Marshal writes and nothing else: an unknown,
// repeated or reordered member, white space, and every other spelling of the same
// record are errors. A version that is not RecordVersion is a *RecordVersionError.
//
// A record that parses is well-formed and no more. Whether it is true is found out
// by an unwrap, whose result must have the record's ID.
func ParseRecord(data []byte) (*Record, error) {
	if len(data) > MaxRecordSize {
		return nil, fmt.Errorf("parsing record: it has %d bytes, %d are allowed", len(data), MaxRecordSize)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, errors.New("parsing record: it is not a JSON object with a version") // err quotes what it read
	}
	if head.Version != RecordVersion {
		return nil, fmt.Errorf("parsing record: %w", &RecordVersionError{Version: head.Version})
	}
	var j recordJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, errors.New("parsing record: a member has the wrong type")
	}
	id, err := envelope.ParseID(j.ID)
	if err != nil {
		return nil, fmt.Errorf("parsing record: %w", err)
	}
	r := &Record{ID: id, Keyring: j.Keyring, Created: j.Created, SealUntil: j.SealUntil, Wrappings: j.Wrappings, Dropped: j.Dropped, Claim: j.Claim}
	again, err := r.Marshal()
	if err != nil {
		return nil, fmt.Errorf("parsing record: %w", err)
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("parsing record: it is not in the exact form of the format")
	}
	return r, nil
}

// validate reports the first thing that is not allowed in a record.
func (r *Record) validate() error {
	if err := checkText("keyring", r.Keyring, MaxNameSize); err != nil {
		return err
	}
	if err := checkTime("created", r.Created); err != nil {
		return err
	}
	if err := checkTime("sealUntil", r.SealUntil); err != nil {
		return err
	}
	if !r.SealUntil.After(r.Created) {
		return errors.New("sealUntil is not after created")
	}
	if len(r.Wrappings) == 0 || len(r.Wrappings) > MaxWrappings {
		return fmt.Errorf("it has %d wrappings, 1 to %d are allowed", len(r.Wrappings), MaxWrappings)
	}
	for i := range r.Wrappings {
		if err := r.Wrappings[i].validate(); err != nil {
			return fmt.Errorf("wrapping %d: %w", i, err)
		}
	}
	if len(r.Dropped) > MaxDropped {
		return fmt.Errorf("it remembers %d wrappings that were dropped, %d are allowed", len(r.Dropped), MaxDropped)
	}
	for i := range r.Dropped {
		if err := r.Dropped[i].validate(); err != nil {
			return fmt.Errorf("dropped wrapping %d: %w", i, err)
		}
	}
	if r.Claim == nil {
		return nil
	}
	if err := checkText("the claim's by", r.Claim.By, MaxNameSize); err != nil {
		return err
	}
	return checkTime("the claim's until", r.Claim.Until)
}

func (d *Dropped) validate() error {
	if err := checkText("kek", d.KEK, MaxNameSize); err != nil {
		return err
	}
	if err := checkText("version", d.Version, MaxVersionSize); err != nil {
		return err
	}
	return checkTime("at", d.At)
}

func (w *Wrapping) validate() error {
	if err := checkText("kek", w.KEK, MaxNameSize); err != nil {
		return err
	}
	if err := checkText("version", w.Version, MaxVersionSize); err != nil {
		return err
	}
	if err := checkText("algorithm", w.Algorithm, MaxNameSize); err != nil {
		return err
	}
	if n := len(w.Ciphertext); n == 0 || n > MaxCiphertextSize {
		return fmt.Errorf("ciphertext has %d bytes, 1 to %d are allowed", n, MaxCiphertextSize)
	}
	if n := len(w.Annotations); n > MaxAnnotations {
		return fmt.Errorf("it has %d annotations, %d are allowed", n, MaxAnnotations)
	}
	for name, value := range w.Annotations {
		if err := checkText("the name of an annotation", name, MaxNameSize); err != nil {
			return err
		}
		if value == nil || len(value) > MaxCiphertextSize {
			return fmt.Errorf("an annotation has no value, or more than %d bytes", MaxCiphertextSize)
		}
	}
	if w.Wrapped.IsZero() {
		return nil
	}
	return checkTime("wrapped", w.Wrapped)
}

// checkText reports a string that is empty, too long or not UTF-8, which JSON would
// change.
func checkText(member, s string, limit int) error {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return fmt.Errorf("%s is not 1 to %d bytes of UTF-8", member, limit)
	}
	return nil
}

// checkTime reports a time that has another spelling than YYYY-MM-DDThh:mm:ssZ.
func checkTime(member string, t time.Time) error {
	if t.Location() != time.UTC || t.Nanosecond() != 0 || t.Year() < 2000 || t.Year() > 9999 {
		return fmt.Errorf("%s is not a time in UTC, in whole seconds, of the years 2000 to 9999", member)
	}
	return nil
}

// encode is json.Marshal without the escapes that only HTML needs.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// wrapping is what the KEK wants to see of it.
func (w *Wrapping) wrapping() kek.Wrapping {
	return kek.Wrapping{Version: w.Version, Algorithm: w.Algorithm, Ciphertext: w.Ciphertext, Annotations: w.Annotations}
}

// same reports whether two wrappings are the same bytes by the same KEK.
func (w *Wrapping) same(o *Wrapping) bool {
	return w.KEK == o.KEK && w.Version == o.Version && w.Algorithm == o.Algorithm && bytes.Equal(w.Ciphertext, o.Ciphertext)
}

// String names the KEK and its version, never the wrapped bytes.
func (w Wrapping) String() string {
	return fmt.Sprintf("wrapping by KEK %q version %.64q", w.KEK, w.Version)
}

// Format prints String for every verb, so that no wrapped bytes can get into an
// error or a log.
func (w Wrapping) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, w.String()) }

// LogValue keeps the wrapped bytes out of structured logs.
func (w Wrapping) LogValue() slog.Value { return slog.StringValue(w.String()) }
