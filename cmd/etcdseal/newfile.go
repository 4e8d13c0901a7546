package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writeNewFile writes a file with mode 0600 that must not exist yet, so that it is there
// as a whole or not at all, and reads it back.
func writeNewFile(path string, content []byte) error {
	if err := writeExclusively(path, content); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	again, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(again, content) {
		err = errors.New("it does not hold what was written")
	}
	if err != nil {
		return fmt.Errorf("reading %s back: %w", path, err)
	}
	return nil
}

// writeExclusively flushes the content under another name and then links it to its own,
// which fails if that is taken.
func writeExclusively(path string, content []byte) (err error) {
	if _, err := os.Lstat(path); err == nil { // so that it is said before the work; the link below decides
		return fmt.Errorf("%w: it is not overwritten, choose another path", fs.ErrExist)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
