package relay

import (
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// itemKind tells what an item is.
type itemKind uint8

const (
	itemHeaders itemKind = iota
	itemData
	itemReset
)

const (
	// itemOverhead is what a queued item costs besides its bytes.
	itemOverhead = 256
	// smallItem is the size up to which a message that must queue is copied
	// next to the one before it: many small ones shall not cost many buffers.
	smallItem = 1 << 10
)

// item is a piece of a stream's output: a header list, a run of data, or a
// reset.
type item struct {
	kind   itemKind
	end    bool // with END_STREAM
	info   bool // informational (1xx) headers
	repay  bool // bytes that leave go back to the sender's stream window
	open   bool // data ends where buf.b ends: more can be added
	prefix [messagePrefixSize]byte
	left   uint8 // bytes of prefix still to write
	code   http2.ErrCode
	cost   int64 // bytes of memory, once it is queued
	data   []byte
	buf    *buffer // the memory of data, when it is the item's own
	fields []hpack.HeaderField
}

// size is how many bytes of DATA are left of it.
func (it *item) size() int { return int(it.left) + len(it.data) }

// done reports whether an item that was written has nothing left.
func (it *item) done() bool { return it.kind != itemData || it.size() == 0 }

// messageItem frames msg as gRPC does, uncompressed.
func messageItem(msg []byte, buf *buffer) item {
	n := len(msg)
	return item{
		kind:   itemData,
		prefix: [messagePrefixSize]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)},
		left:   messagePrefixSize,
		data:   msg,
		buf:    buf,
	}
}

// appendTo appends the bytes that are left.
func (it *item) appendTo(b []byte) []byte {
	b = append(b, it.prefix[messagePrefixSize-int(it.left):]...)
	return append(b, it.data...)
}

// keep makes the item fit for a queue: independent of memory that its maker
// goes on using, and counted.
func (it *item) keep() {
	n := it.size()
	switch {
	case it.kind == itemHeaders:
		it.fields = append([]hpack.HeaderField(nil), it.fields...)
		for i := range it.fields {
			it.cost += int64(it.fields[i].Size())
		}
	case it.kind == itemData && n > 0 && (it.buf == nil || n <= smallItem):
		b := newBuffer(n)
		b.b = it.appendTo(b.b)
		it.buf.free()
		it.buf, it.data, it.left, it.open = b, b.b, 0, true
	}
	it.cost += itemOverhead
	if it.buf != nil {
		it.cost += int64(cap(it.buf.b))
	}
}

// join adds the data of next to an item that waits, when there is room.
func (it *item) join(next *item) bool {
	n := next.size()
	if !it.open || it.end || next.kind != itemData || it.repay != next.repay || cap(it.buf.b)-len(it.buf.b) < n {
		return false
	}
	before := len(it.data)
	it.buf.b = next.appendTo(it.buf.b)
	it.data = it.buf.b[len(it.buf.b)-before-n:]
	it.end = next.end
	next.buf.free()
	return true
}
