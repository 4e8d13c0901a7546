package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/e2e/answer"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
)

// row is something that etcd's own grpc-proxy answers otherwise than etcd does.
type row struct {
	step
	// want is etcd's code, so that a row cannot come to mean something else unseen.
	want codes.Code
}

// TestWhatGRPCProxyGetsWrong does what etcd's own proxy is known to answer otherwise
// than etcd. Through etcdseal each answer must be etcd's.
func TestWhatGRPCProxyGetsWrong(t *testing.T) {
	direct, through := newSides(t, "")
	for _, group := range []struct {
		name string
		rows []row
	}{
		{"error codes", errorRows()},
		{"serializable reads", serializableRows()},
		{"sizes", sizeRows()},
		{"streams", rangeStreamRows(t)},
		{"watch", watchRows(t)},
		{"half-closed streams", halfCloseRows(t)},
		{"services", serviceRows(t)},
		{"what is not known", unknownRows()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, r := range group.rows {
				want, got := direct.run(t, r.step), through.run(t, r.step)
				if want.Code != r.want {
					t.Errorf("%s: etcd answers %v %q, want %v", r.name, want.Code, want.Text, r.want)
				}
				if diff := answer.Diff(want, got); diff != "" {
					t.Errorf("%s (-etcd +etcdseal):\n%s", r.name, shorten(diff))
				}
			}
		})
	}
}

// ok are steps that etcd answers well.
func ok(steps ...step) []row {
	rows := make([]row, len(steps))
	for i, s := range steps {
		rows[i].step = s
	}
	return rows
}

// fails is a step that etcd answers with an error.
func fails(want codes.Code, s step) []row { return []row{{s, want}} }

func join(lists ...[]row) (all []row) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// errorRows: the grpc-proxy makes every code Unknown, and dies of an empty operation.
func errorRows() []row {
	key := []byte(etcdseal.SecretsPrefix + "errors")
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key}}}
	many := &pb.TxnRequest{}
	for i := range 129 {
		many.Success = append(many.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Append(nil, i)}}})
	}
	return join(
		fails(codes.InvalidArgument, unary("range without a key", rpcRange, &pb.RangeRequest{})),
		fails(codes.InvalidArgument, unary("range sorted otherwise", rpcRange, &pb.RangeRequest{Key: key, SortOrder: 7})),
		fails(codes.OutOfRange, unary("range in the future", rpcRange, &pb.RangeRequest{Key: key, Revision: 1 << 40})),
		fails(codes.InvalidArgument, unary("put without a key", rpcPut, &pb.PutRequest{Value: []byte("x")})),
		fails(codes.InvalidArgument, unary("put with a value to ignore", rpcPut, &pb.PutRequest{Key: key, Value: []byte("x"), IgnoreValue: true})),
		fails(codes.InvalidArgument, unary("put with a lease to ignore", rpcPut, &pb.PutRequest{Key: key, Lease: 1, IgnoreLease: true})),
		fails(codes.InvalidArgument, unary("put that keeps no value", rpcPut, &pb.PutRequest{Key: key, IgnoreValue: true})),
		fails(codes.NotFound, unary("put with no such lease", rpcPut, &pb.PutRequest{Key: key, Lease: 99})),
		fails(codes.InvalidArgument, unary("delete without a key", rpcDelete, &pb.DeleteRangeRequest{})),
		fails(codes.InvalidArgument, unary("txn with one key twice", rpcTxn, &pb.TxnRequest{Success: []*pb.RequestOp{put, put}})),
		fails(codes.InvalidArgument, unary("txn with an empty operation", rpcTxn, &pb.TxnRequest{Success: []*pb.RequestOp{{}}})),
		fails(codes.InvalidArgument, unary("txn with too many operations", rpcTxn, many)),
		fails(codes.OutOfRange, unary("compact the future", rpcCompact, &pb.CompactionRequest{Revision: 1 << 40})),
		fails(codes.NotFound, unary("revoke no lease", "etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 99})),
		fails(codes.OutOfRange, unary("grant for ever", "etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{TTL: 1 << 40})),
		fails(codes.NotFound, unary("promote no member", "etcdserverpb.Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: 99})),
		fails(codes.NotFound, unary("remove no member", "etcdserverpb.Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 99})),
	)
}

// serializableRows: the grpc-proxy answers serializable reads from a cache that
// does not hear of writes that others make.
func serializableRows() []row {
	var rows []row
	for _, key := range []string{"/registry/configmaps/cached", etcdseal.SecretsPrefix + "cached"} {
		get := unary("serializable get", rpcRange, &pb.RangeRequest{Key: []byte(key), Serializable: true})
		rows = append(rows, ok(
			unary("put", rpcPut, &pb.PutRequest{Key: []byte(key), Value: []byte("old")}),
			unary("get", rpcRange, &pb.RangeRequest{Key: []byte(key)}),
			get,
			step{"put past the proxy", func(ctx context.Context, s *side) answer.Answer {
				return answer.Unary(ctx, s.behind, rpcPut, &pb.PutRequest{Key: []byte(key), Value: []byte("new")})
			}},
			get)...)
	}
	return rows
}

// sizeRows: the grpc-proxy's own limits answer in place of etcd's.
func sizeRows() []row {
	var rows []row
	for _, prefix := range []string{"/registry/configmaps/", etcdseal.SecretsPrefix} {
		put := func(size int) step {
			return unary(fmt.Sprintf("put %d bytes under %s", size, prefix), rpcPut,
				&pb.PutRequest{Key: []byte(prefix + "size"), Value: make([]byte, size)})
		}
		rows = append(rows, join(ok(put(1<<20)), fails(codes.InvalidArgument, put(1_800_000)), fails(codes.ResourceExhausted, put(5<<20)))...)
		for i := range 4 {
			rows = append(rows, ok(unary("put for a long list", rpcPut,
				&pb.PutRequest{Key: fmt.Appendf(nil, "%slist/%d", prefix, i), Value: bytes.Repeat([]byte{byte(i)}, 1<<20)}))...)
		}
		rows = append(rows, ok(unary("list more than 4 MiB", rpcRange,
			&pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(prefix[:len(prefix)-1] + "0")}))...)
	}
	return rows
}

// rangeStreamRows: the grpc-proxy has no RangeStream.
func rangeStreamRows(t *testing.T) []row {
	var rows []row
	for _, prefix := range []string{"/registry/configmaps/", etcdseal.SecretsPrefix} {
		for _, s := range streamSteps(t, prefix) {
			rows = append(rows, row{step: s})
		}
	}
	for i := range rows {
		switch name := rows[i].name; {
		case strings.HasPrefix(name, "RangeStream, sorted"):
			rows[i].want = codes.Unimplemented
		case strings.HasPrefix(name, "RangeStream, past now"):
			rows[i].want = codes.OutOfRange
		}
	}
	return rows
}

// watchRows: the grpc-proxy ignores ids, fragments and requests for progress, loses
// the reasons of cancellations, and does not fill the header of a refusal.
func watchRows(t *testing.T) []row {
	prefix, end := []byte(etcdseal.SecretsPrefix+"watched/"), []byte(etcdseal.SecretsPrefix+"watched0")
	var rows []row
	for i := range 6 {
		rows = append(rows, ok(unary("put much", rpcPut,
			&pb.PutRequest{Key: fmt.Appendf(nil, "%s%d", prefix, i), Value: bytes.Repeat([]byte{byte(i)}, 400<<10)}))...)
	}
	var first int64
	return append(rows, ok(
		step{"where the history begins", func(ctx context.Context, s *side) answer.Answer {
			a := answer.Unary(ctx, s.conn, rpcRange, &pb.RangeRequest{Key: fmt.Appendf(nil, "%s0", prefix), KeysOnly: true})
			first = a.Messages[0].(*pb.RangeResponse).Kvs[0].ModRevision
			return a
		}},
		open(t, "watch", rpcWatch),
		step{"create 77, with the history in fragments", func(_ context.Context, s *side) answer.Answer {
			s.streams["watch"].Send(createWatch(&pb.WatchCreateRequest{Key: prefix, RangeEnd: end, WatchId: 77, Fragment: true, StartRevision: first}))
			return answer.Answer{}
		}},
		receive("watch", "created", isCreated),
		receive("watch", "fragments", func(m proto.Message) bool {
			r := m.(*pb.WatchResponse)
			return len(r.Events) > 0 && !r.Fragment
		}),
		send("watch", createWatch(&pb.WatchCreateRequest{Key: prefix, WatchId: 77})),
		receive("watch", "an id twice", isCancelled),
		send("watch", createWatch(&pb.WatchCreateRequest{Key: prefix, StartRevision: -1})),
		receive("watch", "before all time", isCancelled),
		send("watch", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}),
		receive("watch", "progress", isProgress),
		send("watch", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 77}}}),
		receive("watch", "cancelled", isCancelled),
		step{"compact", func(ctx context.Context, s *side) answer.Answer {
			return answer.Unary(ctx, s.conn, rpcCompact, &pb.CompactionRequest{Revision: first + 2, Physical: true})
		}},
		send("watch", createWatch(&pb.WatchCreateRequest{Key: prefix, StartRevision: 2})),
		receive("watch", "what was compacted", isCancelled),
	)...)
}

// halfCloseRows: the grpc-proxy ends streams when the client has nothing more to say,
// and makes up a time for a lease that is not there.
func halfCloseRows(t *testing.T) []row {
	key := []byte(etcdseal.SecretsPrefix + "half-closed")
	return ok(
		unary("grant", "etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 7, TTL: 1000}),
		open(t, "keepalive", rpcKeepAlive),
		send("keepalive", &pb.LeaseKeepAliveRequest{ID: 7}, &pb.LeaseKeepAliveRequest{ID: 12345}),
		closeSend("keepalive"),
		receive("keepalive", "answers", nil),
		open(t, "half", rpcWatch),
		send("half", createWatch(&pb.WatchCreateRequest{Key: key})),
		closeSend("half"),
		receive("half", "created", isCreated),
		unary("put", rpcPut, &pb.PutRequest{Key: key, Value: []byte("seen all the same")}),
		receive("half", "the event", func(proto.Message) bool { return true }),
	)
}

// serviceRows: the grpc-proxy does not serve grpc.health.v1, and does not hear that a
// client wants a leader.
func serviceRows(t *testing.T) []row {
	const check = "grpc.health.v1.Health/Check"
	return join(
		ok(unary("health", check, &healthpb.HealthCheckRequest{}),
			unary("health of all", "grpc.health.v1.Health/List", &healthpb.HealthListRequest{}),
			open(t, "health", "grpc.health.v1.Health/Watch"),
			send("health", &healthpb.HealthCheckRequest{}),
			receive("health", "serving", func(proto.Message) bool { return true })),
		fails(codes.NotFound, unary("health of another", check, &healthpb.HealthCheckRequest{Service: "another"})),
		ok(step{"get with hasleader", func(ctx context.Context, s *side) answer.Answer {
			ctx = metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
			return answer.Unary(ctx, s.conn, rpcRange, &pb.RangeRequest{Key: []byte("a")})
		}}),
	)
}

// unknownRows: the grpc-proxy drops the fields that it does not know.
func unknownRows() []row {
	request := &pb.PutRequest{Key: []byte(etcdseal.SecretsPrefix + "unknown"), Value: []byte("x")}
	request.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
	return ok(
		unary("put with a field that is not known", rpcPut, request),
		unary("get", rpcRange, &pb.RangeRequest{Key: request.Key}))
}
