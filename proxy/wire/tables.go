package wire

// The slots of bytes, of every message.
const (
	slotKey slot = iota // also a name
	slotEnd
	slotValue
	numBytes = 3
)

// The slots of numbers, by message.
const (
	slotLimit slot = iota
	slotRevision
	slotOrder
	slotTarget
	slotSerializable
	slotKeysOnly
	slotCountOnly
	slotFilters

	numNumbers = 8
)

const (
	slotLease slot = iota
	slotPrevKV
	slotIgnoreValue
	slotIgnoreLease
)

const (
	slotResult slot = iota
	slotCompareTarget
)

const (
	slotWatchID slot = iota
	slotStart
	slotProgress
	slotWatchPrevKV
	slotFragment
	slotCreated
	slotCanceled
	slotCompacted
)

const (
	slotCluster slot = iota
	slotMember
	slotHeaderRevision
	slotTerm
)

// skip is a number that is checked and not used.
func skip() field { return field{kind: scalar, slot: notKept} }

// num is a number kept in a slot.
func num(s slot) field { return field{kind: scalar, slot: s} }

// buf is bytes kept in a slot.
func buf(s slot) field { return field{kind: bytesof, slot: s} }

// rangeEnd is the end of a key range. An explicit empty one is not plain: the
// generated code of etcd 3.5 and 3.6 tells it from an absent one and reads up to
// the last key, that of etcd 3.7 does not.
func rangeEnd() field { return field{kind: bytesof, slot: slotEnd, solid: true} }

// plainMessage is an embedded message that holds no values.
func plainMessage(m Message) field { return field{kind: embedded, sub: m} }

// valued is an embedded message that may hold values.
func valued(m Message) field { return field{kind: embedded, sub: m, values: true} }

// previous says of a field that the values in it are previous ones.
func previous(f field) field { f.prev = true; return f }

// repeated says of a field that it may be there any number of times.
func repeated(f field) field { f.many = true; return f }

// member says of a field that it belongs to a oneof. The number is that of the
// oneof's first field.
func member(oneof uint8, f field) field { f.oneof = oneof; return f }

// schemas describes every message that Parse reads and all their parts, field by
// field as in etcd's rpc.proto, kv.proto, v3election.proto and v3lock.proto of
// release 3.7. A test compares it with the descriptors of the generated code.
var schemas = [numMessages]schema{
	NoMessage: {name: "no message"},

	RangeRequest: {name: "etcdserverpb.RangeRequest", done: addRange, fields: [firstFar]field{
		1:  buf(slotKey),
		2:  rangeEnd(),
		3:  num(slotLimit),
		4:  num(slotRevision),
		5:  num(slotOrder),
		6:  num(slotTarget),
		7:  num(slotSerializable),
		8:  num(slotKeysOnly),
		9:  num(slotCountOnly),
		10: num(slotFilters), // min_mod_revision; any of the four that is not 0 counts
		11: num(slotFilters),
		12: num(slotFilters),
		13: num(slotFilters),
	}},
	PutRequest: {name: "etcdserverpb.PutRequest", done: addPut, holds: true, fields: [firstFar]field{
		1: buf(slotKey),
		2: buf(slotValue),
		3: num(slotLease),
		4: num(slotPrevKV),
		5: num(slotIgnoreValue),
		6: num(slotIgnoreLease),
	}},
	DeleteRangeRequest: {name: "etcdserverpb.DeleteRangeRequest", done: addDelete, fields: [firstFar]field{
		1: buf(slotKey),
		2: rangeEnd(),
		3: num(slotPrevKV),
	}},
	TxnRequest: {name: "etcdserverpb.TxnRequest", fields: [firstFar]field{
		1: repeated(plainMessage(compare)),
		2: repeated(valued(requestOp)),
		3: repeated(valued(requestOp)),
	}},
	requestOp: {name: "etcdserverpb.RequestOp", fields: [firstFar]field{
		1: member(1, plainMessage(RangeRequest)),
		2: member(1, valued(PutRequest)),
		3: member(1, plainMessage(DeleteRangeRequest)),
		4: member(1, valued(TxnRequest)),
	}},
	compare: {name: "etcdserverpb.Compare", done: addCompare, farNumber: 64, far: rangeEnd(), fields: [firstFar]field{
		1: num(slotResult),
		2: num(slotCompareTarget),
		3: buf(slotKey),
		4: member(4, skip()),
		5: member(4, skip()),
		6: member(4, skip()),
		7: member(4, buf(slotValue)),
		8: member(4, skip()),
	}},
	WatchRequest: {name: "etcdserverpb.WatchRequest", fields: [firstFar]field{
		1: member(1, plainMessage(watchCreate)),
		2: member(1, plainMessage(watchCancel)),
		3: member(1, plainMessage(watchProgress)),
	}},
	watchCreate: {name: "etcdserverpb.WatchCreateRequest", done: setWatchCreate, fields: [firstFar]field{
		1: buf(slotKey),
		2: rangeEnd(),
		3: num(slotStart),
		4: num(slotProgress),
		5: {kind: scalars, slot: notKept, many: true},
		6: num(slotWatchPrevKV),
		7: num(slotWatchID),
		8: num(slotFragment),
	}},
	watchCancel: {name: "etcdserverpb.WatchCancelRequest", done: setWatchCancel, fields: [firstFar]field{
		1: num(slotWatchID),
	}},
	watchProgress: {name: "etcdserverpb.WatchProgressRequest", done: setWatchProgress},

	CampaignRequest: {name: "v3electionpb.CampaignRequest", done: addCampaign, holds: true, fields: [firstFar]field{
		1: buf(slotKey),
		2: num(slotLease),
		3: buf(slotValue),
	}},
	ProclaimRequest: {name: "v3electionpb.ProclaimRequest", done: addProclaim, holds: true, fields: [firstFar]field{
		1: plainMessage(leaderKey),
		2: buf(slotValue),
	}},
	LeaderRequest: {name: "v3electionpb.LeaderRequest", done: addObserve, fields: [firstFar]field{
		1: buf(slotKey),
	}},
	ResignRequest: {name: "v3electionpb.ResignRequest", done: addResign, fields: [firstFar]field{
		1: plainMessage(leaderKey),
	}},
	leaderKey: {name: "v3electionpb.LeaderKey", done: setLeader, fields: [firstFar]field{
		1: {kind: bytesof, slot: notKept},
		2: buf(slotKey),
		3: skip(),
		4: num(slotLease),
	}},
	LockRequest: {name: "v3lockpb.LockRequest", done: addLock, fields: [firstFar]field{
		1: buf(slotKey),
		2: num(slotLease),
	}},
	UnlockRequest: {name: "v3lockpb.UnlockRequest", done: addUnlock, fields: [firstFar]field{
		1: buf(slotKey),
	}},

	RangeResponse: {name: "etcdserverpb.RangeResponse", fields: [firstFar]field{
		1: plainMessage(header),
		2: repeated(valued(keyValue)),
		3: skip(),
		4: skip(),
	}},
	RangeStreamResponse: {name: "etcdserverpb.RangeStreamResponse", fields: [firstFar]field{
		1: valued(RangeResponse),
	}},
	PutResponse: {name: "etcdserverpb.PutResponse", fields: [firstFar]field{
		1: plainMessage(header),
		2: previous(valued(keyValue)),
	}},
	DeleteRangeResponse: {name: "etcdserverpb.DeleteRangeResponse", fields: [firstFar]field{
		1: plainMessage(header),
		2: skip(),
		3: previous(repeated(valued(keyValue))),
	}},
	TxnResponse: {name: "etcdserverpb.TxnResponse", fields: [firstFar]field{
		1: plainMessage(header),
		2: skip(),
		3: repeated(valued(responseOp)),
	}},
	responseOp: {name: "etcdserverpb.ResponseOp", fields: [firstFar]field{
		1: member(1, valued(RangeResponse)),
		2: member(1, valued(PutResponse)),
		3: member(1, valued(DeleteRangeResponse)),
		4: member(1, valued(TxnResponse)),
	}},
	WatchResponse: {name: "etcdserverpb.WatchResponse", done: setWatch, fields: [firstFar]field{
		1:  plainMessage(header),
		2:  num(slotWatchID),
		3:  num(slotCreated),
		4:  num(slotCanceled),
		5:  num(slotCompacted),
		6:  {kind: text, slot: slotKey},
		7:  num(slotFragment),
		11: repeated(valued(event)),
	}},
	event: {name: "mvccpb.Event", done: addEvent, fields: [firstFar]field{
		1: skip(),
		2: valued(keyValue),
		3: previous(valued(keyValue)),
	}},
	keyValue: {name: "mvccpb.KeyValue", done: addValue, holds: true, fields: [firstFar]field{
		1: buf(slotKey),
		2: skip(),
		3: skip(),
		4: skip(),
		5: buf(slotValue),
		6: skip(),
	}},
	LeaderResponse: {name: "v3electionpb.LeaderResponse", fields: [firstFar]field{
		1: plainMessage(header),
		2: valued(keyValue),
	}},
	header: {name: "etcdserverpb.ResponseHeader", done: setHeader, fields: [firstFar]field{
		1: num(slotCluster),
		2: num(slotMember),
		3: num(slotHeaderRevision),
		4: num(slotTerm),
	}},
}
