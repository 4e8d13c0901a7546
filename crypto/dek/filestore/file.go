package filestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// content is what the file says.
type content struct {
	revision int64 // of the last write; counts them
	records  map[envelope.ID]record
}

type record struct {
	Revision int64           `json:"revision"` // of its last write
	Record   json.RawMessage `json:"record"`
}

// contentJSON is the file.
type contentJSON struct {
	Version  int               `json:"version"`
	Revision int64             `json:"revision"`
	Records  map[string]record `json:"records"` // by their DEK's id
}

// load reads the file. One that is not there is an empty keyring.
func (s *Store) load() (*content, error) {
	data, err := readPrivate(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &content{records: map[envelope.ID]record{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading keyring file: %w", err)
	}
	c, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading keyring file %s: %w", s.path, err)
	}
	return c, nil
}

// parse reads the file's bytes. It is strict, but for white space.
func parse(data []byte) (*content, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var j contentJSON
	if err := d.Decode(&j); err != nil {
		return nil, errors.New("it is not a keyring in JSON") // err quotes what it read
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the keyring")
	}
	if j.Version != version {
		return nil, fmt.Errorf("its format version %d is unknown, this etcdseal knows version %d only", j.Version, version)
	}
	if j.Records == nil {
		return nil, errors.New("it has no records member")
	}
	c := &content{revision: j.Revision, records: make(map[envelope.ID]record, len(j.Records))}
	for name, r := range j.Records {
		id, err := envelope.ParseID(name)
		if err != nil {
			return nil, err
		}
		if r.Revision < 1 || r.Revision > j.Revision || len(r.Record) == 0 {
			return nil, fmt.Errorf("the entry of DEK %s is not complete", id)
		}
		c.records[id] = r
	}
	return c, nil
}

// readPrivate reads a regular file that nobody but its owner can read or write.
func readPrivate(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o, which gives others than its owner a right: chmod 600 %s", path, info.Mode().Perm(), path)
	case info.Size() > maxFileSize:
		return nil, fmt.Errorf("%s has %d bytes, %d are allowed", path, info.Size(), maxFileSize)
	}
	return io.ReadAll(io.LimitReader(file, maxFileSize))
}

// save replaces the file, so that after a crash at any time it is the old or the new
// one. What was saved is on the disk when save returns.
func (s *Store) save(c *content) (err error) {
	data := c.encode()
	if len(data) > maxFileSize {
		return fmt.Errorf("writing keyring file %s: it would have %d bytes, %d are allowed", s.path, len(data), maxFileSize)
	}
	dir := filepath.Dir(s.path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(s.path)+".*") // with mode 0600
	if err != nil {
		return fmt.Errorf("writing keyring file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
			err = fmt.Errorf("writing keyring file: %w", err)
		}
	}()
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(file.Name(), s.path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// encode writes one record a line, byte for byte as it was given, in the order of the
// ids.
func (c *content) encode() []byte {
	ids := slices.SortedFunc(maps.Keys(c.records), func(a, b envelope.ID) int { return bytes.Compare(a[:], b[:]) })
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"version":%d,"revision":%d,"records":{`, version, c.revision)
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n\"%s\":{\"revision\":%d,\"record\":%s}", id, c.records[id].Revision, c.records[id].Record)
	}
	b.WriteString("\n}}\n")
	return b.Bytes()
}
