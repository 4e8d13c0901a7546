package migrate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// SegmentBytes is how large a segment of etcd's write-ahead log gets before another one is
// begun. etcd has no setting for it.
const SegmentBytes = 64 * 1000 * 1000

// Segment is a file of a member's write-ahead log.
type Segment struct {
	File    string
	Entries int64 // requests and whatever else the cluster has agreed on
	Used    int64 // bytes up to the end of the last whole record; what follows is zeros, or cut off
}

// Segments returns the segments of the log in a directory, the oldest first. Whatever is
// in them is no error: what cannot be read ends a segment.
func Segments(dir string) ([]Segment, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return nil, fmt.Errorf("listing segments: %w", err)
	}
	slices.Sort(files) // their names begin with a number of fixed width
	var all []Segment
	for _, file := range files {
		segment, err := readSegment(file)
		if err != nil {
			return nil, err
		}
		all = append(all, segment)
	}
	return all, nil
}

// Kinds of records, and bounds of one's frame, as etcd's package wal has them.
const (
	recordFrame  = 8
	recordEntry  = 2
	recordHeader = 1 << 3 // tag of the record's kind, which comes first
)

func readSegment(file string) (Segment, error) {
	f, err := os.Open(file)
	if err != nil {
		return Segment{}, fmt.Errorf("reading segment: %w", err)
	}
	defer f.Close()
	s := Segment{File: file}
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		n, kind, err := readRecord(r)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), err == nil && n == 0:
			return s, nil
		case err != nil:
			return Segment{}, fmt.Errorf("reading segment %s: %w", file, err)
		}
		s.Used += n
		if kind == recordEntry {
			s.Entries++
		}
	}
}

// readRecord reads the next record and returns its bytes with its frame, 0 for the zeros
// after the last one, and its kind.
func readRecord(r *bufio.Reader) (n int64, kind byte, err error) {
	var frame [recordFrame]byte
	if _, err := io.ReadFull(r, frame[:]); err != nil {
		return 0, 0, err
	}
	// The length takes 56 bits; the topmost byte says by how many bytes it was filled up.
	word := binary.LittleEndian.Uint64(frame[:])
	length := int64(word & (1<<56 - 1))
	if word>>63 == 1 {
		length += int64(word >> 56 & 7)
	}
	if length == 0 || length > SegmentBytes*64 {
		return 0, 0, nil
	}
	head, err := r.Peek(2)
	if err != nil {
		return 0, 0, err
	}
	if head[0] == recordHeader {
		kind = head[1]
	}
	if _, err := io.CopyN(io.Discard, r, length); err != nil {
		return 0, 0, err
	}
	return recordFrame + length, kind, nil
}

// Remaining says how much more etcd has to write until it drops a segment. It keeps the
// latest ones, and drops an older one when a snapshot of its own covers it.
type Remaining struct {
	Bytes   int64 // of log
	Entries int64 // about, if entries go on to be as large as they were; 0 if there were none
}

// UntilDropped returns what remains for the i-th segment, if etcd keeps so many
// (--max-wals). It is zero if nothing but a snapshot is missing.
func UntilDropped(all []Segment, i, keep int) Remaining {
	missing := keep - (len(all) - 1 - i) // segments to be begun
	if missing <= 0 {
		return Remaining{}
	}
	last := all[len(all)-1]
	left := Remaining{Bytes: max(SegmentBytes-last.Used, 0) + int64(missing-1)*SegmentBytes}
	var used, entries int64
	for _, s := range all {
		used, entries = used+s.Used, entries+s.Entries
	}
	if entries > 0 {
		left.Entries = left.Bytes/max(used/entries, 1) + 1
	}
	return left
}
