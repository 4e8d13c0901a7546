package wire

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// WatchKind is what a WatchRequest asks for.
type WatchKind uint8

// A WatchRequest without any of its members asks for nothing; etcd ignores it.
const (
	WatchNothing WatchKind = iota
	WatchCreate
	WatchCancel
	WatchProgress
)

// Watch is what a WatchRequest or a WatchResponse says beside its values.
type Watch struct {
	// Of a request.
	Kind             WatchKind
	Key, End         []byte // see Overlaps; a missing key is \x00, as etcd takes it
	StartRevision    int64
	ProgressNotify   bool
	PrevKV           bool
	WantsFragmenting bool // the request's fragment field

	// ID is the watch_id: of a response, of a cancelled watch, or the one asked
	// for at creation (0 if etcd is to choose; it may choose 0).
	ID int64

	// Of a response. Fragment tells that more of the same revision follows.
	Created, Canceled, Fragment bool
	CompactRevision             int64
	CancelReason                []byte
	Events                      int
}

// setWatchRequest keeps the fields of a WatchRequest's member.
func (s *Scan) setWatchRequest(done action, f *frame) {
	w := &s.Watch
	switch done {
	case setWatchCancel:
		w.Kind, w.ID = WatchCancel, int64(f.num[slotWatchID])
	case setWatchProgress:
		w.Kind = WatchProgress
	case setWatchCreate:
		w.Kind, w.ID = WatchCreate, int64(f.num[slotWatchID])
		w.Key, w.End = s.part(f.bytes[slotKey]), s.part(f.bytes[slotEnd])
		if len(w.Key) == 0 {
			s.scratch = append(s.scratch[:0], 0)
			w.Key = s.scratch
		}
		w.StartRevision = int64(f.num[slotStart])
		w.ProgressNotify = f.num[slotProgress] != 0
		w.PrevKV = f.num[slotWatchPrevKV] != 0
		w.WantsFragmenting = f.num[slotFragment] != 0
	}
}

// setWatch keeps the fields of a WatchResponse.
func (s *Scan) setWatch(f *frame) {
	w := &s.Watch
	w.ID = int64(f.num[slotWatchID])
	w.Created = f.num[slotCreated] != 0
	w.Canceled = f.num[slotCanceled] != 0
	w.Fragment = f.num[slotFragment] != 0
	w.CompactRevision = int64(f.num[slotCompacted])
	w.CancelReason = s.part(f.bytes[slotKey])
}

// AppendWatchCancelRequest appends a WatchRequest that cancels a watch.
func AppendWatchCancelRequest(dst []byte, id int64) []byte {
	dst = protowire.AppendTag(dst, 2, protowire.BytesType) // cancel_request
	if id == 0 {
		return append(dst, 0)
	}
	dst = protowire.AppendVarint(dst, uint64(1+protowire.SizeVarint(uint64(id))))
	return appendNumber(dst, 1, uint64(id))
}

// AppendCanceledWatchResponse appends a WatchResponse that tells a client that a
// watch was cancelled and why. Bytes of the reason that are not UTF-8 are
// replaced: a client could not decode the response with them.
func AppendCanceledWatchResponse(dst []byte, h Header, id int64, reason string) []byte {
	var b [64]byte
	hdr := appendNumber(b[:0], 1, h.ClusterID)
	hdr = appendNumber(hdr, 2, h.MemberID)
	hdr = appendNumber(hdr, 3, uint64(h.Revision))
	hdr = appendNumber(hdr, 4, h.RaftTerm)
	dst = protowire.AppendTag(dst, 1, protowire.BytesType) // header
	dst = protowire.AppendBytes(dst, hdr)
	dst = appendNumber(dst, 2, uint64(id)) // watch_id
	dst = appendNumber(dst, 4, 1)          // canceled
	if reason == "" {
		return dst
	}
	dst = protowire.AppendTag(dst, 6, protowire.BytesType) // cancel_reason
	return protowire.AppendString(dst, strings.ToValidUTF8(reason, "\uFFFD"))
}

// appendNumber appends a number's field, none if it is 0.
func appendNumber(dst []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, number, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}
