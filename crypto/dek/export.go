package dek

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// ExportVersion is the version of the format of exports, the only one that is read.
const ExportVersion = 1

// Limits of an export: far more than a keyring has.
const (
	MaxExportSize    = 256 << 20 // bytes
	maxExportRecords = 1 << 17   // records, and tombstones
)

// Export is a keyring outside of its store, for escrow: every record byte for byte as it
// was stored, and the tombstones. Like the keyring it holds no DEK but wrapped ones; see
// docs/FORMAT.md. An Export is not changed once it was made or parsed.
type Export struct {
	Keyring    string        // the keyring's name
	ClusterID  uint64        // of the etcd it was read from; 0: from a file
	Revision   int64         // of the store, when it was read
	Exported   time.Time     // UTC, whole seconds
	Records    []Stored      // ordered by id
	Tombstones []envelope.ID // ordered
}

type exportJSON struct {
	Version    int              `json:"version"`
	Keyring    string           `json:"keyring"`
	Cluster    string           `json:"cluster"`
	Revision   int64            `json:"revision"`
	Exported   time.Time        `json:"exported"`
	Records    []exportedRecord `json:"records"`
	Tombstones []string         `json:"tombstones"`
}

type exportedRecord struct {
	ID       string `json:"id"`
	Revision int64  `json:"revision"`
	Record   []byte `json:"record"`
}

// Export returns what a listing found as an export made at a time. Those records that are
// not of use here are in it, too.
func (l *Listing) Export(at time.Time) *Export {
	e := &Export{Keyring: l.Keyring, ClusterID: l.ClusterID, Revision: l.Revision, Exported: at.UTC().Truncate(time.Second), Tombstones: l.Tombstones}
	for _, r := range l.Records {
		e.Records = append(e.Records, r.Stored)
	}
	return e
}

// Marshal returns the encoding of an export: JSON, a record a line.
func (e *Export) Marshal() ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("encoding export: %w", err)
	}
	j := exportJSON{
		Version: ExportVersion, Keyring: e.Keyring, Cluster: strconv.FormatUint(e.ClusterID, 16), Revision: e.Revision, Exported: e.Exported,
		Records: []exportedRecord{}, Tombstones: []string{},
	}
	for _, r := range e.Records {
		j.Records = append(j.Records, exportedRecord{r.ID.String(), r.Revision, append([]byte{}, r.Data...)})
	}
	for _, id := range e.Tombstones {
		j.Tombstones = append(j.Tombstones, id.String())
	}
	data, err := encode(j)
	if err != nil {
		return nil, fmt.Errorf("encoding export: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", " "); err != nil {
		return nil, fmt.Errorf("encoding export: %w", err)
	}
	b.WriteByte('\n')
	if b.Len() > MaxExportSize {
		return nil, fmt.Errorf("encoding export: it has %d bytes, %d are allowed", b.Len(), MaxExportSize)
	}
	return b.Bytes(), nil
}

// ExportVersionError says that an export is of a format version that is not known here.
type ExportVersionError struct {
	Version int // as the export has it
}

// Error names the version.
func (e *ExportVersionError) Error() string {
	return fmt.Sprintf("the export's format version %d is unknown, this etcdseal knows version %d only", e.Version, ExportVersion)
}

// ParseExport reads what Marshal writes, with any white space between tokens. Everything
// else is an error: an unknown, repeated, reordered or missing member, another spelling of
// a value, something after the end. The records in it are not looked at.
func ParseExport(data []byte) (*Export, error) {
	e, err := parseExport(data)
	if err != nil {
		return nil, fmt.Errorf("parsing export: %w", err)
	}
	return e, nil
}

func parseExport(data []byte) (*Export, error) {
	if len(data) > MaxExportSize {
		return nil, fmt.Errorf("it has %d bytes, %d are allowed", len(data), MaxExportSize)
	}
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil || head.Version == nil {
		return nil, errors.New("it is not a JSON object with a version") // err quotes what it read
	}
	if *head.Version != ExportVersion {
		return nil, &ExportVersionError{Version: *head.Version}
	}
	var j exportJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, errors.New("a member has the wrong type")
	}
	e := &Export{Keyring: j.Keyring, Revision: j.Revision, Exported: j.Exported}
	var err error
	if e.ClusterID, err = strconv.ParseUint(j.Cluster, 16, 64); err != nil {
		return nil, errors.New("cluster is not a number in hexadecimal")
	}
	for _, r := range j.Records {
		id, err := envelope.ParseID(r.ID)
		if err != nil {
			return nil, err
		}
		e.Records = append(e.Records, Stored{ID: id, Data: r.Record, Revision: r.Revision})
	}
	for _, name := range j.Tombstones {
		id, err := envelope.ParseID(name)
		if err != nil {
			return nil, err
		}
		e.Tombstones = append(e.Tombstones, id)
	}
	return e, e.sameAs(data)
}

// sameAs reports whether data is the export's encoding, but for white space.
func (e *Export) sameAs(data []byte) error {
	again, err := e.Marshal()
	if err != nil {
		return errors.Unwrap(err)
	}
	var want, got bytes.Buffer
	if err := errors.Join(json.Compact(&want, again), json.Compact(&got, data)); err != nil {
		return errors.New("it is not JSON")
	}
	if !bytes.Equal(want.Bytes(), got.Bytes()) {
		return errors.New("it is not in the exact form of the format")
	}
	return nil
}

// validate reports the first thing that is not allowed in an export.
func (e *Export) validate() error {
	if err := checkText("keyring", e.Keyring, MaxNameSize); err != nil {
		return err
	}
	if err := checkTime("exported", e.Exported); err != nil {
		return err
	}
	if e.Revision < 0 {
		return errors.New("revision is negative")
	}
	if max(len(e.Records), len(e.Tombstones)) > maxExportRecords {
		return fmt.Errorf("it has more than %d records or tombstones", maxExportRecords)
	}
	for _, r := range e.Records {
		if r.Revision < 0 {
			return fmt.Errorf("the revision of DEK %s is negative", r.ID)
		}
	}
	if !slices.IsSortedFunc(e.Records, func(a, b Stored) int { return strictly(a.ID, b.ID) }) || !slices.IsSortedFunc(e.Tombstones, strictly) {
		return errors.New("records or tombstones are not in the order of their ids, each once")
	}
	return nil
}

// strictly orders ids so that the same one twice is out of order.
func strictly(a, b envelope.ID) int { return cmp.Or(compareIDs(a, b), -1) }
