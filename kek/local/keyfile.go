package local

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A key file is three lines, described in docs/FORMAT.md:
//
//	etcdseal local kek v1
//	the key, 64 lower-case hexadecimal digits
//	its version, 16 lower-case hexadecimal digits
const (
	fileHeader  = "etcdseal local kek v1\n"
	keySize     = 32
	versionSize = 8
	fileSize    = len(fileHeader) + 2*keySize + 1 + 2*versionSize + 1
)

const hintNew = "`etcdseal keyring new-kek --out FILE` makes a new one"

var errFormat = errors.New("this is not a key file of etcdseal, or it was changed: " + hintNew)

// Generate makes a key file with a new random key, mode 0600, at a path where
// nothing is yet. When it returns nil, the file is durable: it and its directory
// are synced. When it fails it removes what it made. A file that was there before,
// or a symbolic link, is left alone; the error is then fs.ErrExist.
func Generate(path string) error {
	key := make([]byte, keySize)
	defer clear(key)
	_, _ = rand.Read(key) // never fails: the program ends instead
	content := marshalKey(key)
	defer clear(content)
	if err := writeExclusively(path, content); err != nil {
		return fmt.Errorf("making key file: %w", err)
	}
	return nil
}

func writeExclusively(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: a KEK is never overwritten, choose another path or move the file away", err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	_, err = f.Write(content)
	// The umask can take bits from 0600, it cannot add any.
	if err = cmp.Or(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return cmp.Or(dir.Sync(), dir.Close())
}

// readKey returns the key in a key file. The caller wipes it.
func readKey(path string) ([]byte, error) {
	// Without O_NONBLOCK the opening of a named pipe would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading key file: %w: %s", err, hintNew)
	}
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	defer f.Close()
	if err := checkMode(f); err != nil {
		return nil, fmt.Errorf("reading key file %s: %w", path, err)
	}
	content := make([]byte, fileSize+1)
	defer clear(content)
	n, err := io.ReadFull(f, content)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	key, err := parseKey(content[:n])
	if err != nil {
		return nil, fmt.Errorf("reading key file %s: %w", path, err)
	}
	return key, nil
}

// checkMode looks at the opened file, not at the path: what is checked is what is
// read, whatever happens to the path, and symbolic links are followed.
func checkMode(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	if perm := info.Mode().Perm(); perm&^0o600 != 0 {
		return fmt.Errorf("its mode is %#o, want 0600, for nobody but its owner may use a KEK: run `chmod 600 %s`", perm, f.Name())
	}
	return nil
}

// marshalKey returns the content of the key's file. The caller wipes it.
func marshalKey(key []byte) []byte {
	content := make([]byte, 0, fileSize)
	content = append(content, fileHeader...)
	content = hex.AppendEncode(content, key)
	content = append(content, '\n')
	content = append(content, versionOf(key)...)
	return append(content, '\n')
}

// parseKey is the inverse of marshalKey and accepts nothing else. Its errors hold
// nothing of the content.
func parseKey(content []byte) ([]byte, error) {
	if len(content) != fileSize || !bytes.HasPrefix(content, []byte(fileHeader)) {
		return nil, errFormat
	}
	key := make([]byte, keySize)
	if _, err := hex.Decode(key, content[len(fileHeader):len(fileHeader)+2*keySize]); err != nil {
		clear(key)
		return nil, errFormat
	}
	same := marshalKey(key)
	defer clear(same)
	if !bytes.Equal(same, content) {
		clear(key)
		return nil, errFormat
	}
	return key, nil
}

// versionOf returns the version of a key: 16 hexadecimal digits.
func versionOf(key []byte) string {
	return hex.EncodeToString(derive(key, "etcdseal local kek version v1", versionSize))
}

// newAEAD makes the cipher of a key's wrappings. It takes no nonce, makes a
// random one and puts it first.
func newAEAD(key []byte) (cipher.AEAD, error) {
	aesKey := derive(key, "etcdseal local kek aes-256-gcm v1", 32)
	defer clear(aesKey)
	block, err := aes.NewCipher(aesKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// derive is HKDF-SHA-256 (RFC 5869) without salt. It cannot fail for a key of
// keySize bytes and less than 8 KiB of output.
func derive(key []byte, info string, size int) []byte {
	out, err := hkdf.Key(sha256.New, key, nil, info, size)
	if err != nil {
		panic(fmt.Sprintf("local: deriving %d bytes from a key of %d: %v", size, len(key), err))
	}
	return out
}
