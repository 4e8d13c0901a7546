// Package wire finds and replaces the values inside etcd's gRPC messages.
//
// It works on the protobuf bytes of one message (without gRPC's five-byte
// prefix) and does it in two phases. [Scan.Parse] walks the message and lists
// what it holds: the values, each with its etcd key; the operations that a
// request asks for; the response header; what a watch message says. Nothing is
// changed. The caller then decides what each value becomes, and [Scan.InPlace]
// or [Scan.Append] builds the message again around the replaced values.
//
// A message is walked by one piece of code from tables (schema.go; key-value pairs
// as etcd writes them by a faster one, pair.go) as long as it is in the plain
// form: every singular field at most once, every known field with its right wire
// type. Anything else that is valid protobuf is first decoded and encoded again by
// the generated code, so that a field given twice or a oneof with two members
// means here exactly what it means to etcd: what the proxy looked at is what etcd
// executes. Unknown fields are kept. What the generated code refuses is refused
// here ([ErrMalformed]).
//
// The package does no I/O, knows no cryptography and no policy. A Scan belongs
// to one goroutine at a time; everything else is safe for concurrent use.
package wire

import (
	"errors"
	"fmt"
	"math"
)

var (
	// ErrMalformed means that the bytes are not a valid encoding of the message.
	// A gRPC server answers such a request with the code Internal.
	ErrMalformed = errors.New("malformed protobuf message")

	// ErrTooManyOps means that a transaction holds more operations than [MaxOps]
	// allows or nests deeper than 511 transactions. etcd says InvalidArgument
	// with the text "etcdserver: too many operations in txn request" to far
	// fewer. It is also the error of a message that is not in the plain form and
	// has more parts than a message may have operations.
	ErrTooManyOps = errors.New("too many operations in one request")
)

// MaxOps is the largest number of operations and compares, counted over all
// depths, that a request may have. A request of n bytes may have 1024 + n/16 of
// them, up to MaxOps, so that what is made of a message takes a small multiple of
// the message's memory: an empty operation has two bytes on the wire and two
// hundred here. etcd's own limit is 128 for each depth unless it is raised by
// --max-txn-ops, and it takes no operation without a key.
const MaxOps = 1 << 16

// mostParts returns how many operations, or embedded messages where it has to be
// decoded by the generated code, a message of n bytes may have.
func mostParts(n int) int { return min(fewParts+n/16, MaxOps) }

// fewParts is how many operations a message of any size may have.
const fewParts = 1024

// maxDepth is how deep messages may nest, the outermost one included: what is
// deeper takes a stack of megabytes to read. The generated code of etcd 3.7 reads
// ten times as deep, that of 3.5 and 3.6 has no limit; but every etcd refuses
// transactions deeper than its limit of operations, 128 by default.
const maxDepth = 1024

// keptEntries is how many entries a list of a Scan may keep for the next
// message. A response of a hundred thousand keys must not pin its lists.
const keptEntries = 4096

// Value is one value inside a message, in the order of the wire.
type Value struct {
	// Key is the etcd key that the value belongs to: a part of the message, or
	// made from the request for Campaign (see [Op]). It is nil for a Campaign
	// without a lease, whose key is not known before etcd grants one.
	Key []byte

	// Old is the value as it stands in the message. It is empty for a Put or a
	// Campaign without a value; values of responses are listed only if they are
	// not empty.
	Old []byte

	// New is what takes the place of Old if Replace is set. It may be a part of
	// Old, never of another place of the message.
	New []byte

	// NewLen is the length of the new value if New is nil and AppendFunc or
	// InPlaceFunc is to make it.
	NewLen int

	// Replace asks for New in place of Old. Without it the value stays as it is.
	Replace bool

	// Prev tells that the value is a previous one (prev_kv, prev_kvs).
	Prev bool

	tag    byte  // the field's tag
	parent int32 // the node around the message that holds the field, -1 if there is none
	field  span  // the value's field; if it is missing, all of it is where it goes
	holder span  // the message that holds the field, as frame has it
}

// Header is etcd's ResponseHeader.
type Header struct {
	ClusterID, MemberID uint64
	Revision            int64
	RaftTerm            uint64
}

// Scan is the result of reading one message, and the memory for it. The zero
// value is ready. A Scan that is used again does not allocate for messages that
// are no larger than the ones before.
//
// The slices in it are parts of the message given to Parse or of a copy of it;
// they are valid until the next call of Parse or Clear.
type Scan struct {
	// Message is the type that was read.
	Message Message

	// Msg is the message to send if nothing is replaced. It is the slice given
	// to Parse, or, if Normalised is set, a new one that means the same.
	Msg []byte

	// Normalised tells that the message was not in the plain form.
	Normalised bool

	// Values are the values of the message. The caller sets New and Replace.
	Values []Value

	// Ops are the operations of a request.
	Ops []Op

	// Header is the response's header if HasHeader is set. The chunks of a
	// RangeStream have none, but for the last.
	Header    Header
	HasHeader bool

	// Watch is what a WatchRequest or WatchResponse says beside its values.
	Watch Watch

	nodes   []node
	scratch []byte // the keys of Election, Lock and keyless Watch requests
	leader  []byte // the key of a Proclaim or Resign
	lease   int64  // and its lease
	most    int    // how many operations there may be
}

// Parse reads one message of the given type and fills the Scan. It does not
// change msg. Errors wrap [ErrMalformed] or [ErrTooManyOps]; the Scan holds
// nothing of use then.
func (s *Scan) Parse(m Message, msg []byte) error {
	s.Clear()
	if m <= NoMessage || m >= header || len(msg) > math.MaxInt32 {
		return fmt.Errorf("reading %s of %d bytes: %w", m, len(msg), ErrMalformed)
	}
	most := mostParts(len(msg))
	v := s.scan(m, msg, most)
	if v == notPlain {
		s.Clear()
		if msg, v = normalise(m, msg, most); v == plain {
			s.Normalised = true
			v = s.scan(m, msg, most)
		}
	}
	if err := v.err(); err != nil {
		s.Clear()
		return fmt.Errorf("reading %s: %w", m, err)
	}
	return nil
}

// scan walks the message from its beginning.
func (s *Scan) scan(m Message, msg []byte, most int) verdict {
	if len(msg) > math.MaxInt32 { // longer now than it came
		return malformed
	}
	s.Message, s.Msg, s.most = m, msg, most
	return s.walk(m, &frame{place: span{end: int32(len(msg))}, depth: 1, parent: -1})
}

// Clear forgets the message and keeps the memory of the lists for the next one.
func (s *Scan) Clear() {
	clear(s.Values)
	clear(s.Ops)
	s.Values, s.Ops = kept(s.Values), kept(s.Ops)
	s.nodes, s.scratch = kept(s.nodes), kept(s.scratch)
	s.Message, s.Msg, s.Normalised = NoMessage, nil, false
	s.Header, s.HasHeader, s.Watch = Header{}, false, Watch{}
	s.leader, s.lease, s.most = nil, 0, 0
}

// kept returns the empty list, without its memory if that is large.
func kept[T any](list []T) []T {
	if cap(list) > keptEntries {
		return nil
	}
	return list[:0]
}
