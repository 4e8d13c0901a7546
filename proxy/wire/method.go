package wire

// Class says how a proxy handles an RPC.
type Class uint8

const (
	// Passed RPCs carry no values and cannot change a key directly.
	Passed Class = iota
	// Guarded RPCs carry no values, but their requests write or delete keys.
	Guarded
	// Rewritten RPCs carry values in requests, in responses or in both.
	Rewritten
)

// Method is one RPC that etcd serves.
type Method struct {
	Path  string // as in the :path header
	Class Class

	// Request and Response are the messages to read, NoMessage where there is
	// nothing to look at.
	Request, Response Message

	ClientStreams, ServerStreams bool
}

// Lookup returns the method of a path, which must match byte for byte: etcd over
// TLS also executes other spellings of it. It does not allocate.
func Lookup[P string | []byte](path P) (Method, bool) {
	m, ok := methods[string(path)]
	return m, ok
}

// Methods returns every method, in no order.
func Methods() []Method {
	list := make([]Method, 0, len(methods))
	for _, m := range methods {
		list = append(list, m)
	}
	return list
}

// methods are all methods of etcd 3.7 and of the health service beside them.
var methods = index(
	Method{Path: "/etcdserverpb.KV/Range", Class: Rewritten, Request: RangeRequest, Response: RangeResponse},
	Method{Path: "/etcdserverpb.KV/RangeStream", Class: Rewritten, Request: RangeRequest, Response: RangeStreamResponse, ServerStreams: true},
	Method{Path: "/etcdserverpb.KV/Put", Class: Rewritten, Request: PutRequest, Response: PutResponse},
	Method{Path: "/etcdserverpb.KV/DeleteRange", Class: Rewritten, Request: DeleteRangeRequest, Response: DeleteRangeResponse},
	Method{Path: "/etcdserverpb.KV/Txn", Class: Rewritten, Request: TxnRequest, Response: TxnResponse},
	Method{Path: "/etcdserverpb.KV/Compact"},

	Method{Path: "/etcdserverpb.Watch/Watch", Class: Rewritten, Request: WatchRequest, Response: WatchResponse, ClientStreams: true, ServerStreams: true},

	Method{Path: "/v3electionpb.Election/Campaign", Class: Rewritten, Request: CampaignRequest},
	Method{Path: "/v3electionpb.Election/Proclaim", Class: Rewritten, Request: ProclaimRequest},
	Method{Path: "/v3electionpb.Election/Leader", Class: Rewritten, Request: LeaderRequest, Response: LeaderResponse},
	Method{Path: "/v3electionpb.Election/Observe", Class: Rewritten, Request: LeaderRequest, Response: LeaderResponse, ServerStreams: true},
	Method{Path: "/v3electionpb.Election/Resign", Class: Guarded, Request: ResignRequest},

	Method{Path: "/v3lockpb.Lock/Lock", Class: Guarded, Request: LockRequest},
	Method{Path: "/v3lockpb.Lock/Unlock", Class: Guarded, Request: UnlockRequest},

	// A lease can end the life of keys attached to it, by its expiry as much as
	// by LeaseRevoke; attaching one to a key takes a Put.
	Method{Path: "/etcdserverpb.Lease/LeaseGrant"},
	Method{Path: "/etcdserverpb.Lease/LeaseRevoke"},
	Method{Path: "/etcdserverpb.Lease/LeaseKeepAlive", ClientStreams: true, ServerStreams: true},
	Method{Path: "/etcdserverpb.Lease/LeaseTimeToLive"},
	Method{Path: "/etcdserverpb.Lease/LeaseLeases"},

	Method{Path: "/etcdserverpb.Cluster/MemberAdd"},
	Method{Path: "/etcdserverpb.Cluster/MemberRemove"},
	Method{Path: "/etcdserverpb.Cluster/MemberUpdate"},
	Method{Path: "/etcdserverpb.Cluster/MemberList"},
	Method{Path: "/etcdserverpb.Cluster/MemberPromote"},

	Method{Path: "/etcdserverpb.Maintenance/Alarm"},
	Method{Path: "/etcdserverpb.Maintenance/Status"},
	Method{Path: "/etcdserverpb.Maintenance/Defragment"},
	Method{Path: "/etcdserverpb.Maintenance/Hash"},
	Method{Path: "/etcdserverpb.Maintenance/HashKV"},
	Method{Path: "/etcdserverpb.Maintenance/Snapshot", ServerStreams: true},
	Method{Path: "/etcdserverpb.Maintenance/MoveLeader"},
	Method{Path: "/etcdserverpb.Maintenance/Downgrade"},

	Method{Path: "/etcdserverpb.Auth/AuthEnable"},
	Method{Path: "/etcdserverpb.Auth/AuthDisable"},
	Method{Path: "/etcdserverpb.Auth/AuthStatus"},
	Method{Path: "/etcdserverpb.Auth/Authenticate"},
	Method{Path: "/etcdserverpb.Auth/UserAdd"},
	Method{Path: "/etcdserverpb.Auth/UserGet"},
	Method{Path: "/etcdserverpb.Auth/UserList"},
	Method{Path: "/etcdserverpb.Auth/UserDelete"},
	Method{Path: "/etcdserverpb.Auth/UserChangePassword"},
	Method{Path: "/etcdserverpb.Auth/UserGrantRole"},
	Method{Path: "/etcdserverpb.Auth/UserRevokeRole"},
	Method{Path: "/etcdserverpb.Auth/RoleAdd"},
	Method{Path: "/etcdserverpb.Auth/RoleGet"},
	Method{Path: "/etcdserverpb.Auth/RoleList"},
	Method{Path: "/etcdserverpb.Auth/RoleDelete"},
	Method{Path: "/etcdserverpb.Auth/RoleGrantPermission"},
	Method{Path: "/etcdserverpb.Auth/RoleRevokePermission"},

	Method{Path: "/grpc.health.v1.Health/Check"},
	Method{Path: "/grpc.health.v1.Health/Watch", ServerStreams: true},
	Method{Path: "/grpc.health.v1.Health/List"},
)

// index makes a map by path.
func index(list ...Method) map[string]Method {
	byPath := make(map[string]Method, len(list))
	for _, m := range list {
		byPath[m.Path] = m
	}
	return byPath
}
