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
)

// load reads the file. One that is not there is an empty keyring.
func (s *Store) load() (*content, error) {
	data, err := readPrivate(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &content{Version: version, Records: map[string]record{}}, nil
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
	c := &content{}
	if err := d.Decode(c); err != nil {
		return nil, errors.New("it is not a keyring in JSON") // err quotes what it read
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the keyring")
	}
	if c.Version != version {
		return nil, fmt.Errorf("its format version %d is unknown, this etcdseal knows version %d only", c.Version, version)
	}
	if c.Records == nil {
		return nil, errors.New("it has no records member")
	}
	for id, r := range c.Records {
		if r.Revision < 1 || r.Revision > c.Revision || len(r.Record) == 0 {
			return nil, fmt.Errorf("the entry of DEK %.40q is not complete", id)
		}
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
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"version\":%d,\"revision\":%d,\"records\":{", c.Version, c.Revision)
	for i, id := range slices.Sorted(maps.Keys(c.Records)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n%q:{\"revision\":%d,\"record\":%s}", id, c.Records[id].Revision, c.Records[id].Record)
	}
	b.WriteString("\n}}\n")
	return b.Bytes()
}
