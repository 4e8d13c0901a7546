package e2e

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/e2e/answer"
	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
)

// versions are the etcds that etcdseal stands in front of, by the name of their
// tests. The value is what the harness calls them.
var versions = map[string]string{"3.7": "", "3.6": "3.6", "3.5": "3.5"}

// The methods that the steps call most.
const (
	rpcPut         = "etcdserverpb.KV/Put"
	rpcRange       = "etcdserverpb.KV/Range"
	rpcRangeStream = "etcdserverpb.KV/RangeStream"
	rpcDelete      = "etcdserverpb.KV/DeleteRange"
	rpcTxn         = "etcdserverpb.KV/Txn"
	rpcCompact     = "etcdserverpb.KV/Compact"
	rpcWatch       = "etcdserverpb.Watch/Watch"
	rpcKeepAlive   = "etcdserverpb.Lease/LeaseKeepAlive"
)

// TestEtcdVersions lets clients do the same with each version of etcd and with
// etcdseal in front of it. They must see the same.
func TestEtcdVersions(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			direct, through := newSides(t, version)
			if name != "3.5" { // which has none
				waitStorageVersions(t, direct, through)
			}
			runSteps(t, direct, through, allSteps(t))
			checkVersion(t, through, name)
			checkSealed(t, through)
		})
	}
}

// allSteps are done in this order. They leave etcd's authentication on.
func allSteps(t *testing.T) []step {
	var steps []step
	steps = append(steps, openWatch(t)...)
	for _, prefix := range []string{etcdseal.SecretsPrefix, "/registry/configmaps/"} {
		steps = append(steps, valueSteps(prefix)...)
		steps = append(steps, streamSteps(t, prefix)...)
		steps = append(steps, leaseSteps(t, prefix)...)
	}
	steps = append(steps, endWatch()...)
	steps = append(steps, malformedSteps()...)
	steps = append(steps, clusterSteps()...)
	return append(steps, authSteps()...)
}

// valueSteps put, read, change and delete keys under a prefix in all the ways that
// show values.
func valueSteps(prefix string) []step {
	key := func(name string) []byte { return []byte(prefix + name) }
	end := []byte(prefix[:len(prefix)-1] + "0")
	get := func(r *pb.RangeRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	}
	put := func(r *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	}
	remove := func(r *pb.DeleteRangeRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	}
	nested := func(r *pb.TxnRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
	}
	created := func(name string, revision int64) *pb.Compare {
		return &pb.Compare{Key: key(name), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: revision}}
	}
	return []step{
		unary("put", rpcPut, &pb.PutRequest{Key: key("a"), Value: []byte("one")}),
		unary("put again", rpcPut, &pb.PutRequest{Key: key("a"), Value: []byte("two"), PrevKv: true}),
		unary("put nothing", rpcPut, &pb.PutRequest{Key: key("b")}),
		unary("put much", rpcPut, &pb.PutRequest{Key: key("c"), Value: bytes.Repeat([]byte("x"), 300_000)}),
		unary("ignore value", rpcPut, &pb.PutRequest{Key: key("a"), IgnoreValue: true, PrevKv: true}),
		unary("get", rpcRange, &pb.RangeRequest{Key: key("a")}),
		unary("get none", rpcRange, &pb.RangeRequest{Key: key("none")}),
		unary("get serializable", rpcRange, &pb.RangeRequest{Key: key("a"), Serializable: true}),
		unary("get an old revision", rpcRange, &pb.RangeRequest{Key: key("a"), Revision: 2}),
		unary("list", rpcRange, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end}),
		unary("list two of three, backwards", rpcRange, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, Limit: 2,
			SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_MOD}),
		unary("list keys", rpcRange, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, KeysOnly: true}),
		unary("count", rpcRange, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, CountOnly: true}),
		unary("list what is new", rpcRange, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, MinModRevision: 4}),
		unary("txn that succeeds", rpcTxn, &pb.TxnRequest{
			Compare: []*pb.Compare{created("d", 0)},
			Success: []*pb.RequestOp{put(&pb.PutRequest{Key: key("d"), Value: []byte("four")}), get(&pb.RangeRequest{Key: key("d")}),
				nested(&pb.TxnRequest{Success: []*pb.RequestOp{put(&pb.PutRequest{Key: key("e"), Value: []byte("five")})}})},
		}),
		unary("txn that fails", rpcTxn, &pb.TxnRequest{
			Compare: []*pb.Compare{created("d", 0)},
			Success: []*pb.RequestOp{put(&pb.PutRequest{Key: key("d"), Value: []byte("no")})},
			Failure: []*pb.RequestOp{put(&pb.PutRequest{Key: key("d"), Value: []byte("yes"), PrevKv: true}),
				get(&pb.RangeRequest{Key: []byte(prefix), RangeEnd: end}), remove(&pb.DeleteRangeRequest{Key: key("e"), PrevKv: true})},
		}),
		unary("delete one", rpcDelete, &pb.DeleteRangeRequest{Key: key("d"), PrevKv: true}),
		unary("delete none", rpcDelete, &pb.DeleteRangeRequest{Key: key("d"), PrevKv: true}),
		unary("delete the rest but c", rpcDelete, &pb.DeleteRangeRequest{Key: []byte(prefix), RangeEnd: key("c"), PrevKv: true}),
		unary("a deleted one at its revision", rpcRange, &pb.RangeRequest{Key: key("a"), Revision: 3}),
	}
}

// streamSteps list by RangeStream. A server that has none says so. How a list is cut
// is etcd's choice by the sizes it stores, so its chunks are put together.
func streamSteps(t *testing.T, prefix string) []step {
	var steps []step
	for i := range 30 {
		steps = append(steps, unary("put for the stream", rpcPut,
			&pb.PutRequest{Key: fmt.Appendf(nil, "%sstream/%02d", prefix, i), Value: bytes.Repeat([]byte{byte(i)}, 1000*i)}))
	}
	for name, request := range map[string]*pb.RangeRequest{
		"RangeStream":           {Key: []byte(prefix + "stream/"), RangeEnd: []byte(prefix + "stream0")},
		"RangeStream, limited":  {Key: []byte(prefix + "stream/"), RangeEnd: []byte(prefix + "stream0"), Limit: 7},
		"RangeStream, sorted":   {Key: []byte(prefix), RangeEnd: []byte{0}, SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_MOD},
		"RangeStream, past now": {Key: []byte(prefix), RangeEnd: []byte{0}, Revision: 1 << 40},
	} {
		steps = append(steps, open(t, name+prefix, rpcRangeStream), send(name+prefix, request), closeSend(name+prefix), step{name + prefix, func(_ context.Context, s *side) answer.Answer {
			a := s.streams[name+prefix].Receive(nil)
			whole := &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{}}
			for _, m := range a.Messages {
				proto.Merge(whole, m)
			}
			a.Messages = []proto.Message{whole}
			return a
		}})
	}
	return steps
}

// leaseSteps give keys a lease and end it.
func leaseSteps(t *testing.T, prefix string) []step {
	const id = 4711
	name := "keepalive" + prefix
	return []step{
		unary("grant", "etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: id, TTL: 1000}),
		unary("put with a lease", rpcPut, &pb.PutRequest{Key: []byte(prefix + "leased"), Value: []byte("short-lived"), Lease: id}),
		unary("keep its lease", rpcPut, &pb.PutRequest{Key: []byte(prefix + "leased"), Value: []byte("more"), IgnoreLease: true, PrevKv: true}),
		unary("get with a lease", rpcRange, &pb.RangeRequest{Key: []byte(prefix + "leased")}),
		unary("leases", "etcdserverpb.Lease/LeaseLeases", &pb.LeaseLeasesRequest{}),
		open(t, name, rpcKeepAlive),
		send(name, &pb.LeaseKeepAliveRequest{ID: id}, &pb.LeaseKeepAliveRequest{ID: id + 1}),
		closeSend(name),
		receive(name, "answers", nil),
		{"time to live", func(ctx context.Context, s *side) answer.Answer {
			a := answer.Unary(ctx, s.conn, "etcdserverpb.Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
			for _, m := range a.Messages {
				m.(*pb.LeaseTimeToLiveResponse).TTL = 0 // it goes down by the clock
			}
			return a
		}},
		unary("revoke", "etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: id}),
		unary("get without a lease", rpcRange, &pb.RangeRequest{Key: []byte(prefix + "leased")}),
		unary("put with a lease that was", rpcPut, &pb.PutRequest{Key: []byte(prefix + "leased"), Value: []byte("x"), Lease: id}),
	}
}

// openWatch watches everything, with previous values, from before anything is done.
func openWatch(t *testing.T) []step {
	return []step{
		open(t, "watch", rpcWatch),
		send("watch", createWatch(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true})),
		receive("watch", "created", isCreated),
	}
}

// endWatch receives what the watch has seen. How events are put into messages is
// left to chance, so they are taken out.
func endWatch() []step {
	const last = "the last key"
	return []step{
		unary("last put", rpcPut, &pb.PutRequest{Key: []byte(last)}),
		{"events", func(_ context.Context, s *side) answer.Answer {
			return events(s.streams["watch"], last)
		}},
		send("watch", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}),
		receive("watch", "progress", isProgress),
		send("watch", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{}}}),
		receive("watch", "cancelled", isCancelled),
	}
}

// events receives up to the event of a key.
func events(stream *answer.Stream, last string) answer.Answer {
	a := stream.Receive(func(m proto.Message) bool {
		list := m.(*pb.WatchResponse).Events
		return len(list) > 0 && string(list[len(list)-1].Kv.Key) == last
	})
	var list []proto.Message
	for _, m := range a.Messages {
		for _, e := range m.(*pb.WatchResponse).Events {
			list = append(list, e)
		}
	}
	a.Messages = list
	return a
}

func createWatch(r *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

func isCreated(m proto.Message) bool   { return m.(*pb.WatchResponse).Created }
func isCancelled(m proto.Message) bool { return m.(*pb.WatchResponse).Canceled }
func isProgress(m proto.Message) bool {
	r := m.(*pb.WatchResponse)
	return len(r.Events) == 0 && !r.Created && !r.Canceled
}

// malformedSteps send what no client of etcd's sends. How it is answered depends on the
// version.
func malformedSteps() []step {
	put := func(key string) []byte { return append([]byte{0x0a, byte(len(key))}, key...) }
	var steps []step
	for _, s := range []struct {
		name, method string
		messages     [][]byte
	}{
		{"a put that is cut off", rpcPut, [][]byte{{0x0a}}},
		{"a txn that is cut off", rpcTxn, [][]byte{{0x12, 0x05, 0x12}}},
		{"a RangeStream that is cut off", rpcRangeStream, [][]byte{{0x0a}}},
		{"a watch that is cut off", rpcWatch, [][]byte{{0x0a}}},
		{"a grant that is cut off", "etcdserverpb.Lease/LeaseGrant", [][]byte{{0x08}}},
		{"two puts in one call", rpcPut, [][]byte{put(etcdseal.SecretsPrefix + "first"), put("/registry/configmaps/second")}},
		{"two puts in one call, the other way round", rpcPut, [][]byte{put("/registry/configmaps/second"), put(etcdseal.SecretsPrefix + "first")}},
		{"a put and one that is cut off", rpcPut, [][]byte{put(etcdseal.SecretsPrefix + "first"), {0x0a}}},
		{"no put in a call", rpcPut, nil},
		{"a range and one that is cut off", rpcRange, [][]byte{put(etcdseal.SecretsPrefix + "c"), {0x0a}}},
		{"a put with two keys", rpcPut, [][]byte{append(put("/registry/configmaps/a"), put(etcdseal.SecretsPrefix+"two")...)}},
		{"an unknown method", "etcdserverpb.KV/Get", [][]byte{put("a")}},
		{"an unknown service", "etcdserverpb.kv/Put", [][]byte{put("a")}},
		{"no service", "Put", [][]byte{put("a")}},
		{"another spelling", "etcdserverpb.KV/%50ut", [][]byte{put(etcdseal.SecretsPrefix + "spelled")}},
	} {
		steps = append(steps, step{s.name, func(ctx context.Context, on *side) answer.Answer {
			return answer.Bytes(ctx, on.conn, s.method, s.messages...)
		}})
	}
	return append(steps, unary("what is stored then", rpcRange, &pb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0")}))
}

// clusterSteps ask for what is not about keys.
func clusterSteps() []step {
	return []step{
		unary("compact", rpcCompact, &pb.CompactionRequest{Revision: 5, Physical: true}),
		unary("get what was compacted", rpcRange, &pb.RangeRequest{Key: []byte("a"), Revision: 3}),
		{"members", func(ctx context.Context, s *side) answer.Answer {
			a := answer.Unary(ctx, s.conn, "etcdserverpb.Cluster/MemberList", &pb.MemberListRequest{})
			for _, m := range a.Messages {
				for _, member := range m.(*pb.MemberListResponse).Members {
					member.ID, member.PeerURLs, member.ClientURLs = 0, nil, nil
				}
			}
			return a
		}},
		{"version", func(ctx context.Context, s *side) answer.Answer {
			a := answer.Unary(ctx, s.conn, "etcdserverpb.Maintenance/Status", &pb.StatusRequest{})
			for i, m := range a.Messages {
				status := m.(*pb.StatusResponse)
				a.Messages[i] = &pb.StatusResponse{Header: status.Header, Version: status.Version, StorageVersion: status.StorageVersion,
					IsLearner: status.IsLearner, Errors: status.Errors}
			}
			return a
		}},
		unary("alarms", "etcdserverpb.Maintenance/Alarm", &pb.AlarmRequest{}),
		unary("defragment", "etcdserverpb.Maintenance/Defragment", &pb.DefragmentRequest{}),
		unary("is authentication on", "etcdserverpb.Auth/AuthStatus", &pb.AuthStatusRequest{}),
	}
}

// authSteps switch etcd's authentication on and call with a right token, a wrong one
// and none.
func authSteps() []step {
	const password = "steps-password"
	var steps []step
	for _, user := range []string{"root", "reader"} {
		steps = append(steps,
			unary("add user", "etcdserverpb.Auth/UserAdd", &pb.AuthUserAddRequest{Name: user, Password: password, Options: nil}),
			unary("add role", "etcdserverpb.Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: user}),
			unary("grant role", "etcdserverpb.Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: user, Role: user}))
	}
	key := []byte(etcdseal.SecretsPrefix + "c")
	login := func(user, password string) step {
		return step{"log in as " + user, func(ctx context.Context, s *side) answer.Answer {
			a := answer.Unary(ctx, s.conn, "etcdserverpb.Auth/Authenticate", &pb.AuthenticateRequest{Name: user, Password: password})
			for _, m := range a.Messages {
				response := m.(*pb.AuthenticateResponse)
				s.token, response.Token = response.Token, ""
			}
			return a
		}}
	}
	use := func(token string) step {
		return step{"take the token " + token, func(_ context.Context, s *side) answer.Answer {
			s.token = token
			return answer.Answer{}
		}}
	}
	return append(steps,
		unary("grant permission", "etcdserverpb.Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "reader", Perm: &authpb.Permission{PermType: authpb.READ, Key: key}}),
		unary("switch on", "etcdserverpb.Auth/AuthEnable", &pb.AuthEnableRequest{}),
		unary("get without a token", rpcRange, &pb.RangeRequest{Key: key}),
		login("reader", "wrong"),
		login("reader", password),
		unary("get as reader", rpcRange, &pb.RangeRequest{Key: key}),
		unary("get another as reader", rpcRange, &pb.RangeRequest{Key: append(key, 'x')}),
		unary("put as reader", rpcPut, &pb.PutRequest{Key: key, Value: []byte("x")}),
		unary("txn as reader", rpcTxn, &pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key}}}}}),
		use("wrong.1"),
		unary("get with a wrong token", rpcRange, &pb.RangeRequest{Key: key}),
		login("root", password),
		unary("put as root", rpcPut, &pb.PutRequest{Key: key, Value: []byte("by root"), PrevKv: true}),
		unary("get as root", rpcRange, &pb.RangeRequest{Key: key}),
	)
}

// checkVersion makes sure that the server is the one that is meant, and that only
// the newest has RangeStream.
func checkVersion(t *testing.T, s *side, want string) {
	t.Helper()
	a := s.run(t, unary("version", "etcdserverpb.Maintenance/Status", &pb.StatusRequest{}))
	if a.Code != codes.OK || a.Messages[0].(*pb.StatusResponse).Version[:len(want)] != want {
		t.Errorf("the server is another than %s: %v", want, a)
	}
	ctx := s.with(call(t))
	stream, err := answer.Open(ctx, s.conn, rpcRangeStream)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.RangeRequest{Key: []byte("a")})
	stream.CloseSend()
	code, wantCode := stream.Receive(nil).Code, codes.Unimplemented
	if want == "3.7" {
		wantCode = codes.OK
	}
	if code != wantCode {
		t.Errorf("RangeStream of %s answers %v, want %v", want, code, wantCode)
	}
}

// checkSealed looks at what etcd holds: envelopes under the rule, plaintext elsewhere.
func checkSealed(t *testing.T, s *side) {
	t.Helper()
	a := answer.Unary(s.with(call(t)), s.behind, rpcRange, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if a.Code != codes.OK {
		t.Fatalf("reading everything: %v", a)
	}
	sealed, plain := 0, 0
	for _, kv := range a.Messages[0].(*pb.RangeResponse).Kvs {
		under := bytes.HasPrefix(kv.Key, []byte(etcdseal.SecretsPrefix))
		if etcd.IsEnvelope(kv.Value) != under {
			t.Errorf("%s is stored as an envelope: %v", kv.Key, !under)
		}
		if under {
			sealed++
		} else {
			plain++
		}
	}
	if sealed < 30 || plain < 30 {
		t.Errorf("etcd holds %d sealed and %d plain values, want 30 of each at least", sealed, plain)
	}
}

// TestKeyringInOldEtcds keeps the keyring in the etcd of each earlier version: what
// one process has sealed the next one reads, every DEK has its record, and the record
// is put back when etcd has lost it.
func TestKeyringInOldEtcds(t *testing.T) {
	for _, version := range []string{"3.6", "3.5"} {
		t.Run(version, func(t *testing.T) {
			l := newVersionLab(t, version, true)
			proxy := etcdseal.Start(t, l.secureProxyConfig(t))
			client := proxy.Client(t, l.authority, l.authority.Client(t, "client"))
			key, value := etcdseal.SecretsPrefix+"a", string(l.secret(t, "old", 100))
			put := func(key string) {
				t.Helper()
				if _, err := client.Put(call(t), key, value); err != nil {
					t.Fatalf("putting: %v", err)
				}
			}
			put(key)
			proxy.Restart(t)
			response, err := client.Get(call(t), key)
			if err != nil || len(response.Kvs) != 1 || string(response.Kvs[0].Value) != value {
				t.Errorf("getting after a restart: %v (or another value)", err)
			}
			put(key + "b")
			if n := l.checkDEKs(t); n != 2 {
				t.Errorf("%d envelopes, want 2", n)
			}
			records := etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix)
			if _, err := l.raw.Delete(call(t), etcdseal.KeyringPrefix, clientv3.WithPrefix()); err != nil {
				t.Fatalf("deleting the keyring: %v", err)
			}
			waitRecords(t, l, records)
			put(key + "c")
			if n := l.checkDEKs(t); n != 3 {
				t.Errorf("%d envelopes, want 3", n)
			}
		})
	}
}
