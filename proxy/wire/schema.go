package wire

// Message names a type of message. The exported ones are those that Parse
// reads: every request that touches keys and every response that can hold
// values.
type Message uint8

// The messages that Parse reads. NoMessage stands for one that is not read.
const (
	NoMessage Message = iota

	RangeRequest
	PutRequest
	DeleteRangeRequest
	TxnRequest
	WatchRequest
	CampaignRequest
	ProclaimRequest
	LeaderRequest
	ResignRequest
	LockRequest
	UnlockRequest

	RangeResponse
	RangeStreamResponse
	PutResponse
	DeleteRangeResponse
	TxnResponse
	WatchResponse
	LeaderResponse

	// The parts of the messages above.
	header
	keyValue
	event
	requestOp
	responseOp
	compare
	watchCreate
	watchCancel
	watchProgress
	leaderKey

	numMessages
)

// String returns the name of the message in etcd's API definition.
func (m Message) String() string {
	if m >= numMessages {
		return "unknown message"
	}
	return schemas[m].name
}

// kind is how a field is encoded.
type kind uint8

const (
	unknown  kind = iota // not a field of the message
	scalar               // a varint: integers, enumerations, booleans
	scalars              // repeated scalar: single varints or packed
	bytesof              // bytes
	text                 // a string, which must be UTF-8
	embedded             // another message
)

// slot is where the walk keeps a field for Scan.finish. Slots
// of numbers and of bytes are counted apart.
type slot uint8

// notKept is the slot of fields that are checked and not used.
const notKept slot = 15

// field describes one field of a message.
type field struct {
	kind   kind
	slot   slot
	many   bool    // repeated: any number of times is plain
	oneof  uint8   // a number shared by the members of a oneof, of which one is plain
	solid  bool    // an explicit empty value is not plain
	prev   bool    // values inside are previous ones
	sub    Message // the type of an embedded message
	values bool    // the embedded message may hold values
}

// firstFar is the first field number that is not an index of schema.fields.
const firstFar = 16

// action is what is made of a message's fields when all of them are read; see
// Scan.finish.
type action uint8

const (
	nothing action = iota
	addValue
	addPut
	addRange
	addDelete
	addCompare
	addCampaign
	addProclaim
	addObserve
	addResign
	addLock
	addUnlock
	addEvent
	setHeader
	setWatch
	setLeader
	setWatchCreate
	setWatchCancel
	setWatchProgress
)

// schema describes one type of message.
type schema struct {
	name   string
	fields [firstFar]field
	// etcd's API has one field number beyond the table: Compare.range_end.
	farNumber uint64
	far       field
	done      action // what to make of the fields
	holds     bool   // one of the fields is a value
}

// field returns the description of a field number.
func (c *schema) field(number uint64) *field {
	if number < firstFar {
		return &c.fields[number]
	}
	if number == c.farNumber {
		return &c.far
	}
	return &c.fields[0]
}

// bit returns the bit that marks a singular field as seen.
func (f *field) bit(number uint64) uint32 {
	if f.oneof != 0 {
		return 1 << f.oneof
	}
	return 1 << (number & 31) // number 64 shares bit 0 with no other field
}
