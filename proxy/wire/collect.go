package wire

import (
	"slices"
	"strconv"
)

// OpKind is what an operation does to keys.
type OpKind uint8

const (
	// OpRange reads the keys: Range, RangeStream, Leader, Observe.
	OpRange OpKind = iota + 1
	// OpPut writes: Put, Campaign, Proclaim, Lock.
	OpPut
	// OpDelete deletes: DeleteRange, Resign, Unlock.
	OpDelete
	// OpCompare is a condition of a Txn.
	OpCompare
)

// Values of Op.SortTarget, Op.Target and Op.Result that matter to a proxy.
const (
	SortByValue  int32 = 4 // RangeRequest.SortTarget VALUE
	CompareValue int32 = 3 // Compare.CompareTarget VALUE
)

// Op is one operation of a request, at any depth of a Txn, in the order of the
// wire. Its keys are the ones that etcd will touch:
//
//   - Campaign and Lock put one key, name/ followed by the lease in hexadecimal.
//     With lease 0 etcd grants a lease first; the op then has all keys that
//     begin with name/ as its range. Name is set.
//   - Proclaim and Resign touch leader.key whatever leader.name says.
//   - Leader and Observe read the keys that begin with name/. Name is set.
//   - Unlock deletes the key that it is given.
type Op struct {
	Kind  OpKind
	Depth int // 0 for the request itself and the operations of an outermost Txn

	// Key and End are the key range as etcd's API has it, see [Overlaps].
	Key, End []byte
	Name     []byte

	// Value is the index in Scan.Values of what is put, -1 if the operation is
	// not a Put or puts nothing of the client's (Lock).
	Value int

	// Of a Put: the lease, and whether the stored value or lease is to be kept.
	// A Put with IgnoreValue must not be given a value. PrevKV also belongs to
	// deletes.
	Lease                            int64
	IgnoreValue, IgnoreLease, PrevKV bool

	// Of a Range. Filters tells that a minimum or maximum revision is set.
	Limit, Revision                            int64
	SortOrder, SortTarget                      int32
	Serializable, KeysOnly, CountOnly, Filters bool

	// Of a Compare. Operand is the value to compare with; HasOperand tells an
	// empty one from none. etcd takes none as empty if Target is CompareValue,
	// and does not look at the operand otherwise.
	Result, Target int32
	Operand        []byte
	HasOperand     bool
}

// finish makes something of the fields of a message. The name of each action is
// in the table of schemas.
func (s *Scan) finish(done action, f *frame) verdict {
	switch done {
	case addValue:
		if v := f.bytes[slotValue]; v.data < v.end {
			s.addValue(f, v, 5<<3|2, s.part(f.bytes[slotKey]))
		}
	case addEvent:
		s.Watch.Events++
	case setHeader:
		s.setHeader(f)
	case setWatch:
		s.setWatch(f)
	case setWatchCreate, setWatchCancel, setWatchProgress:
		s.setWatchRequest(done, f)
	case setLeader:
		s.leader, s.lease = s.part(f.bytes[slotKey]), int64(f.num[slotLease])
	case nothing:
	default:
		return s.addOp(done, f)
	}
	return plain
}

// addOp adds the operation that the fields of a request make.
func (s *Scan) addOp(done action, f *frame) verdict {
	if len(s.Ops) == s.most {
		return tooMany
	}
	op := s.newOp()
	op.Value, op.Key, op.End = -1, s.part(f.bytes[slotKey]), s.part(f.bytes[slotEnd])
	// Each level of a Txn nests two messages; the request itself is the first.
	op.Depth = max(0, (f.depth-2)/2)
	switch done {
	case addPut:
		op.Kind, op.Lease = OpPut, int64(f.num[slotLease])
		op.PrevKV = f.num[slotPrevKV] != 0
		op.IgnoreValue = f.num[slotIgnoreValue] != 0
		op.IgnoreLease = f.num[slotIgnoreLease] != 0
		op.Value = s.addValue(f, f.bytes[slotValue], 2<<3|2, op.Key)
	case addRange:
		s.fillRange(op, f)
	case addDelete:
		op.Kind, op.PrevKV = OpDelete, f.num[slotPrevKV] != 0
	case addCompare:
		op.Kind, op.Result, op.Target = OpCompare, int32(f.num[slotResult]), int32(f.num[slotCompareTarget])
		op.Operand, op.HasOperand = s.part(f.bytes[slotValue]), f.bytes[slotValue].data > 0
	case addCampaign, addLock:
		op.Kind, op.Lease = OpPut, int64(f.num[slotLease])
		op.Name = op.Key
		op.Key, op.End = s.leaseKey(op.Name, op.Lease)
	case addObserve:
		op.Kind, op.Name = OpRange, op.Key
		op.Key, op.End = s.leaseKey(op.Name, 0)
	case addProclaim:
		op.Kind, op.Key, op.Lease = OpPut, s.leader, s.lease
		op.Value = s.addValue(f, f.bytes[slotValue], 2<<3|2, op.Key)
	case addResign:
		op.Kind, op.Key, op.Lease = OpDelete, s.leader, s.lease
	case addUnlock:
		op.Kind = OpDelete
	}
	if done == addCampaign {
		key := op.Key
		if op.Lease == 0 {
			key = nil
		}
		op.Value = s.addValue(f, f.bytes[slotValue], 3<<3|2, key)
	}
	return plain
}

// newOp adds an operation to the list, where it stands, as newValue does.
func (s *Scan) newOp() *Op {
	n := len(s.Ops)
	switch {
	case n < cap(s.Ops):
	case n < fewParts:
		s.Ops = slices.Grow(s.Ops, 1)
	default:
		// All at once: on the way there append would allocate five times as much.
		s.Ops = append(make([]Op, 0, s.most), s.Ops...)
		s.Values = append(make([]Value, 0, s.most), s.Values...)
	}
	s.Ops = s.Ops[:n+1]
	return &s.Ops[n]
}

// fillRange makes a Range of its fields.
func (s *Scan) fillRange(op *Op, f *frame) {
	op.Kind = OpRange
	op.Limit, op.Revision = int64(f.num[slotLimit]), int64(f.num[slotRevision])
	op.SortOrder, op.SortTarget = int32(f.num[slotOrder]), int32(f.num[slotTarget])
	op.Serializable = f.num[slotSerializable] != 0
	op.KeysOnly = f.num[slotKeysOnly] != 0
	op.CountOnly = f.num[slotCountOnly] != 0
	op.Filters = f.num[slotFilters] != 0
}

// addValue adds the value of the message in f and returns its index. An absent
// field (of a request) goes where its message ends.
func (s *Scan) addValue(f *frame, p span, tag byte, key []byte) int {
	if p.data == 0 {
		p = span{f.place.end, f.place.end, f.place.end, f.place.end}
	}
	v := s.newValue(p, key)
	v.Prev, v.parent, v.tag, v.holder = f.prev, f.parent, tag, f.place
	return len(s.Values) - 1
}

// newValue adds a value to the list, where it stands: to copy one costs more than
// the rest of reading it. Beyond the list's length all values are zero.
func (s *Scan) newValue(p span, key []byte) *Value {
	n := len(s.Values)
	if n == cap(s.Values) {
		s.Values = slices.Grow(s.Values, 1)
	}
	s.Values = s.Values[:n+1]
	v := &s.Values[n]
	v.Key, v.Old, v.field = key, s.Msg[p.data:p.end:p.end], p
	return v
}

// setHeader keeps the response's header, not those of the operations in a Txn.
func (s *Scan) setHeader(f *frame) {
	depth := 2
	if s.Message == RangeStreamResponse {
		depth = 3
	}
	if f.depth != depth {
		return
	}
	s.HasHeader = true
	s.Header = Header{
		ClusterID: f.num[slotCluster],
		MemberID:  f.num[slotMember],
		Revision:  int64(f.num[slotHeaderRevision]),
		RaftTerm:  f.num[slotTerm],
	}
}

// part returns a field's bytes, nil if it is absent.
func (s *Scan) part(p span) []byte {
	if p.data == 0 {
		return nil
	}
	return s.Msg[p.data:p.end:p.end]
}

// leaseKey returns the key of a lease in an election or of a lock, as etcd's
// concurrency package makes it. Without a lease it is the range of all of them.
func (s *Scan) leaseKey(name []byte, lease int64) (key, end []byte) {
	b := AppendLeaseKey(s.scratch[:0], name, lease)
	if lease != 0 {
		s.scratch = b
		return b, nil
	}
	n := len(b)
	b = append(append(b, name...), '/'+1)
	s.scratch = b
	return b[:n:n], b[n:]
}

// AppendLeaseKey appends the key that Campaign and Lock write for a name and a
// lease. Without a lease (0) it appends what the keys of all leases begin with.
func AppendLeaseKey(dst, name []byte, lease int64) []byte {
	dst = append(append(dst, name...), '/')
	if lease == 0 {
		return dst
	}
	return strconv.AppendInt(dst, lease, 16)
}
