package relay

import (
	"bytes"
	"slices"

	"golang.org/x/net/http2/hpack"
)

// A connection's calls have few header lists among them, and once their fields are in
// HPACK's dynamic table the blocks of a list are the same bytes each time. So what the
// last blocks meant, and how the last lists were encoded, is kept for as long as the
// table stays as it is.

const (
	// keptLists is how many lists of one direction are kept: a request's and what
	// begins and ends an answer, of two kinds of calls.
	keptLists = 4
	// longestKept is how long a block may be that is kept, in bytes.
	longestKept = 64
)

// steady reports whether a block is nothing but references to the table, each in one
// byte (RFC 7541, 6.1): it says the same until the table changes, and does not change
// it.
func steady(block []byte) bool {
	for _, b := range block {
		if b <= 0x80 || b == 0xff {
			return false
		}
	}
	return len(block) <= longestKept
}

// headerList is a header list and a block that stands for it.
type headerList struct {
	block  []byte
	fields []hpack.HeaderField
	size   int  // of the fields, as HPACK counts
	valid  bool // it was found to be a valid request
}

// headerLists are the last lists, of which the oldest makes room.
type headerLists struct {
	kept [keptLists]headerList
	n    int // how many there were
}

func (l *headerLists) add(block []byte, fields []hpack.HeaderField, size int) *headerList {
	h := &l.kept[l.n%keptLists]
	l.n++
	*h = headerList{bytes.Clone(block), slices.Clone(fields), size, false}
	return h
}

func (l *headerLists) forget() {
	if l.n > 0 {
		*l = headerLists{}
	}
}

// decoder decodes a connection's header blocks.
type decoder struct {
	hpack *hpack.Decoder
	seen  headerLists
	// Of the last block:
	fields []hpack.HeaderField // may be changed
	size   int                 // as HPACK counts; past maxHeaderList not all fields are there
	list   *headerList         // nil if it is not kept
}

func newDecoder() *decoder {
	d := &decoder{}
	d.hpack = hpack.NewDecoder(tableSize, d.emit)
	d.hpack.SetMaxStringLength(maxHeaderList)
	return d
}

// emit takes a decoded field; past the limit fields are counted, not kept.
func (d *decoder) emit(f hpack.HeaderField) {
	d.size += int(f.Size())
	if d.size <= maxHeaderList {
		d.fields = append(d.fields, f)
	}
}

// decode decodes a whole header block.
func (d *decoder) decode(block []byte) error {
	clear(d.fields)
	d.fields, d.size, d.list = d.fields[:0], 0, nil
	if cap(d.fields) > 128 {
		d.fields = nil
	}
	still := steady(block)
	if still {
		for i := range d.seen.kept {
			if h := &d.seen.kept[i]; h.block != nil && bytes.Equal(h.block, block) {
				d.fields, d.size, d.list = append(d.fields, h.fields...), h.size, h
				return nil
			}
		}
	} else {
		d.seen.forget()
	}
	if _, err := d.hpack.Write(block); err != nil {
		return err
	}
	if err := d.hpack.Close(); err != nil {
		return err
	}
	if still {
		d.list = d.seen.add(block, d.fields, d.size)
	}
	return nil
}

// encoder encodes a connection's header lists.
type encoder struct {
	hpack *hpack.Encoder
	buf   bytes.Buffer
	sent  headerLists
	list  []hpack.HeaderField // memory for encode
}

func newEncoder() *encoder {
	e := &encoder{}
	e.hpack = hpack.NewEncoder(&e.buf)
	return e
}

// limitTable takes the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) limitTable(size uint32) {
	e.hpack.SetMaxDynamicTableSizeLimit(min(size, tableSize))
	e.sent.forget()
}

// encode returns a list's block, valid until the next call. It is to be written before
// another one's, since the peer's table changes with each.
func (e *encoder) encode(fields []hpack.HeaderField) []byte {
	e.buf.Reset()
	if e.buf.Cap() > 8<<10 {
		e.buf = bytes.Buffer{}
	}
	if !slices.ContainsFunc(fields, isTimeout) {
		return e.known(fields)
	}
	// Another one each time, it would push the rest out of the table. It goes behind
	// what is the same each time, as a field that is never in the table.
	e.list = e.list[:0]
	for i := range fields {
		if !isTimeout(fields[i]) {
			e.list = append(e.list, fields[i])
		}
	}
	block := e.known(e.list)
	if e.buf.Len() == 0 { // it was kept
		e.buf.Write(block)
	}
	for _, f := range fields {
		if isTimeout(f) {
			f.Sensitive = true
			_ = e.hpack.WriteField(f)
		}
	}
	clear(e.list)
	return e.buf.Bytes()
}

// known returns the block of a list without timeouts, in buf unless it was kept.
func (e *encoder) known(fields []hpack.HeaderField) []byte {
	for i := range e.sent.kept {
		if h := &e.sent.kept[i]; h.block != nil && slices.Equal(h.fields, fields) {
			return h.block
		}
	}
	for i := range fields {
		_ = e.hpack.WriteField(fields[i]) // a bytes.Buffer takes everything
	}
	block := e.buf.Bytes()
	if steady(block) {
		e.sent.add(block, fields, 0)
	} else {
		e.sent.forget()
	}
	return block
}

func isTimeout(f hpack.HeaderField) bool { return f.Name == "grpc-timeout" }
