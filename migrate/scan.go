package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Sizes of the scanner, in bytes. Files are looked at in chunks; with each goes enough of
// what is around it for a record's head: what comes before the key, the key, and the fields
// up to the first bytes of the value.
const (
	scanChunk   = 4 << 20
	scanBefore  = 16
	scanAfter   = maxScanKey + 64
	maxScanKey  = 16 << 10
	minScanning = 4 // of a prefix: a shorter one is found everywhere
)

// Errors of a scan.
var (
	// ErrInUse says that a data directory belongs to an etcd that runs.
	ErrInUse = errors.New("an etcd is using it, so that it changes while it is read: stop that member, or take a copy (of its disk, at one moment)")
	// ErrNotEtcd says that nothing of etcd's is where it was looked for.
	ErrNotEtcd = errors.New("nothing in it is etcd's, neither a database nor a log, so that this says nothing about any: name a member's data directory or a snapshot; a copy that is encrypted has to be decrypted first")
	// ErrPacked says that a file is compressed, so that it cannot be told what is in it.
	ErrPacked = errors.New("it is compressed, so that nobody can tell what is in it: unpack it first, or take it away")
	// ErrShortPrefix says that a rule's prefix is too short to be looked for.
	ErrShortPrefix = fmt.Errorf("prefixes of less than %d bytes cannot be looked for in files", minScanning)
)

// Scanned is what a scan looked at.
type Scanned struct {
	Files    []string
	Bytes    int64
	Records  int64 // with a key under a rule that seals
	Sealed   int64
	Findings int64
}

// Scanner looks through etcd's files, byte by byte and whatever their state, for the
// records that hold a key under a rule that seals together with its value: those of the
// database, in use or in pages that are free, and the requests of the write-ahead log,
// truncated, broken or put aside. It needs no key and no etcd.
//
// It finds a value by the key that stands before it. What is left of a large value, the
// beginning of which was overwritten, cannot be told from other bytes: only a
// defragmented database file is without such remains.
type Scanner struct {
	rules    ruleSet
	prefixes [][]byte
	found    func(Finding)
	chunk    int64 // size of one
	known    bool  // a file was one of etcd's
	packed   []string
	result   Scanned
}

// NewScanner returns a Scanner for the rules that have a Sealer. It is used by one
// goroutine, which also calls found.
func NewScanner(rules []Rule, found func(Finding)) (*Scanner, error) {
	s := &Scanner{rules: newRuleSet(rules, ""), found: found, chunk: scanChunk}
	sealing := slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool { return r.Sealer == nil })
	for _, sp := range newRuleSet(sealing, "").spans("") {
		if sp.key == "\x00" || len(sp.key) < minScanning {
			return nil, fmt.Errorf("making scanner: %w", ErrShortPrefix)
		}
		s.prefixes = append(s.prefixes, []byte(sp.key))
	}
	if len(s.prefixes) == 0 {
		return nil, fmt.Errorf("making scanner: %w says `seal: true`, so that nothing would be looked for", ErrNoRule)
	}
	return s, nil
}

// Result returns what was looked at so far.
func (s *Scanner) Result() Scanned { return s.result }

// Scan looks through a file, or every file below a directory, on all processors. It fails
// if an etcd is using one of them.
func (s *Scanner) Scan(ctx context.Context, path string) error {
	before := len(s.result.Files)
	s.known, s.packed = false, nil
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("scanning: %w", err)
	}
	err = s.inOrder(ctx, func(ctx context.Context, yield func(*chunk) bool) error {
		return filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() || entry.Type()&fs.ModeSymlink == 0 && !entry.Type().IsRegular():
				return nil
			}
			return split(file, s.chunk, yield)
		})
	})
	if err != nil {
		return fmt.Errorf("scanning %s: %w", path, err)
	}
	if len(s.result.Files) == before {
		return fmt.Errorf("scanning %s: there is no file in it", path)
	}
	switch {
	case len(s.packed) > 0:
		return fmt.Errorf("scanning %s: %w", strings.Join(s.packed, ", "), ErrPacked)
	case !s.known:
		return fmt.Errorf("scanning %s: %w", path, ErrNotEtcd)
	}
	return nil
}

// take takes in what was found in a chunk.
func (s *Scanner) take(c *chunk) error {
	if c.err != nil {
		return c.err
	}
	if c.start == 0 {
		s.result.Files = append(s.result.Files, c.file.Name())
	}
	if c.packed {
		s.packed = append(s.packed, c.file.Name())
	}
	s.known = s.known || c.known || c.records > 0
	s.result.Bytes += c.end - c.start
	s.result.Records += c.records
	s.result.Sealed += c.sealed
	s.result.Findings += int64(len(c.found))
	for _, f := range c.found {
		s.found(f)
	}
	return nil
}

// look looks at the candidates whose key begins in a chunk.
func (s *Scanner) look(c *chunk, buf []byte) {
	base := max(c.start-scanBefore, 0)
	until := min(c.end+scanAfter, c.size)
	buf = buf[:until-base]
	if _, err := c.file.ReadAt(buf, base); err != nil && !errors.Is(err, io.EOF) {
		c.err = err
		return
	}
	if c.start == 0 {
		c.known, c.packed = ofEtcd(c.file.Name(), buf), packed(buf)
	}
	for _, prefix := range s.prefixes {
		from, to := int(c.start-base), int(c.end-base)
		for at := from; at < to; at++ {
			i := bytes.Index(buf[at:], prefix)
			if i < 0 || at+i >= to {
				break
			}
			at += i
			s.candidate(c, buf, base, at)
		}
	}
}

// databaseMagic is in the head of the first two pages of etcd's database, after 16 bytes of
// each (go.etcd.io/bbolt's meta).
const databaseMagic = 0xED0CDAED

// ofEtcd reports whether a file that begins so is one of etcd's: a segment of the log by its
// name, whatever became of what is in it, a database by its content, whatever its name.
func ofEtcd(name string, begin []byte) bool {
	if strings.HasSuffix(name, ".wal") || strings.HasSuffix(name, ".wal.broken") {
		return true
	}
	for _, page := range []int{0, 4 << 10, 16 << 10, 64 << 10} { // the sizes of pages there are
		at := page + 16
		if len(begin) < at+4 {
			return false
		}
		// The machine's order of bytes.
		if binary.LittleEndian.Uint32(begin[at:]) == databaseMagic || binary.BigEndian.Uint32(begin[at:]) == databaseMagic {
			return true
		}
	}
	return false
}

// packed reports whether a file that begins so is compressed, by gzip, zstd, xz, bzip2, lz4 or zip:
// what is in it is not seen.
func packed(begin []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00", "BZh", "\x04\x22\x4d\x18", "PK\x03\x04"} {
		if bytes.HasPrefix(begin, []byte(magic)) {
			return true
		}
	}
	return false
}

// candidate looks at a place where a key may begin.
func (s *Scanner) candidate(c *chunk, buf []byte, base int64, at int) {
	start, key, ok := keyField(buf, at)
	if !ok || !s.rules.sealed(key) {
		return
	}
	kind, value, size, ok := valueField(buf[start], buf[at+len(key):])
	if !ok {
		return
	}
	c.records++
	if envelope.Is(value) {
		c.sealed++
		return
	}
	offset := base + int64(start)
	err := ErrPlaintext
	if end := base + int64(len(buf)); end == c.size && uint64(len(value)) < size {
		err = errCut
		if bytes.HasPrefix([]byte(magic), value) {
			c.sealed++
			return
		}
	}
	c.found = append(c.found, Finding{Place: Disk, File: c.file.Name(), Offset: offset, Key: slices.Clone(key), Kind: kind, Err: err})
}

// magic is how an envelope begins, of which the end of a file may leave less than it takes
// to tell.
const magic = "\x00es"

var errCut = fmt.Errorf("%w, the end of which is cut off", ErrPlaintext)

// Tags of protobuf fields of type bytes.
const (
	tag1 = 1<<3 | 2 // key of KeyValue and PutRequest
	tag2 = 2<<3 | 2 // value of PutRequest
	tag3 = 3<<3 | 2 // key of Compare
	tag5 = 5<<3 | 2 // value of KeyValue
	tag7 = 7<<3 | 2 // value of Compare
)

// keyField returns where the field begins whose content begins at a place, and the
// content.
func keyField(buf []byte, at int) (start int, key []byte, ok bool) {
	for width := 1; width <= 3 && at-width-1 >= 0; width++ {
		start := at - width - 1
		n, used := binary.Uvarint(buf[start+1 : at])
		if used != width || n == 0 || n > maxScanKey || (buf[start] != tag1 && buf[start] != tag3) {
			continue
		}
		return start, buf[at:min(at+int(n), len(buf))], at+int(n) <= len(buf)
	}
	return 0, nil, false
}

// valueField finds the value in what follows a key. It returns its size and as much of it
// as is there. ok is false if there is none.
func valueField(keyTag byte, rest []byte) (kind string, value []byte, size uint64, ok bool) {
	want, kind := byte(tag5), "database record"
	if keyTag == tag3 {
		want, kind = tag7, "comparison in a request"
	} else if len(rest) > 0 && rest[0] == tag2 {
		want, kind = tag2, "write request"
	}
	for len(rest) > 0 && rest[0] != want {
		if rest[0]&7 != 0 || rest[0]>>3 < 2 || rest[0]>>3 > 4 { // numbers of KeyValue before the value
			return "", nil, 0, false
		}
		_, n := binary.Uvarint(rest[1:])
		if n <= 0 {
			return "", nil, 0, false
		}
		rest = rest[1+n:]
	}
	if len(rest) < 2 {
		return "", nil, 0, false
	}
	size, n := binary.Uvarint(rest[1:])
	if n <= 0 || size == 0 || size > 1<<30 {
		return "", nil, 0, false
	}
	value = rest[1+n:]
	value = value[:min(uint64(len(value)), size)]
	return kind, value, size, len(value) > 0
}
