package difftest

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// TestEveryFaultIsSeen plants one kind of difference after the other in front of the subject. Each must end the run with a Mismatch.
func TestEveryFaultIsSeen(t *testing.T) {
	for name, fault := range map[string]faulty{
		"range value": {unary: onReply(func(r *pb.RangeResponse) {
			for _, kv := range r.Kvs {
				if isSealed(kv) {
					flip(kv.Value)
				}
			}
		})},
		"range order": {unary: onReply(func(r *pb.RangeResponse) { slices.Reverse(r.Kvs) })},
		"range count": {unary: onReply(func(r *pb.RangeResponse) { r.Count++ })},
		"range more":  {unary: onReply(func(r *pb.RangeResponse) { r.More = false })},
		"range keys":  {unary: onReply(func(r *pb.RangeResponse) { r.Kvs = r.Kvs[:max(0, len(r.Kvs)-1)] })},
		"put prev_kv": {unary: onReply(func(r *pb.PutResponse) { r.PrevKv = nil })},
		"put value":   {unary: onReply(func(r *pb.PutResponse) { flip(r.GetPrevKv().GetValue()) })},
		"put version": {unary: onReply(func(r *pb.PutResponse) {
			if r.PrevKv != nil {
				r.PrevKv.Version++
			}
		})},
		"delete prev_kv": {unary: onReply(func(r *pb.DeleteRangeResponse) { r.PrevKvs = nil })},
		"delete count":   {unary: onReply(func(r *pb.DeleteRangeResponse) { r.Deleted++ })},
		"txn branch":     {unary: onReply(func(r *pb.TxnResponse) { r.Succeeded = !r.Succeeded })},
		"txn nested value": {unary: onReply(func(r *pb.TxnResponse) {
			for _, op := range r.Responses {
				for _, inner := range op.GetResponseTxn().GetResponses() {
					for _, kv := range inner.GetResponseRange().GetKvs() {
						flip(kv.Value)
					}
				}
			}
		})},
		"header revision": {unary: onReply(func(r *pb.PutResponse) { r.Header.Revision++ })},
		"header ids":      {unary: onReply(func(r *pb.TxnResponse) { r.Header.MemberId++ })},
		"unknown field": {unary: onReply(func(r *pb.RangeResponse) {
			r.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
		})},
		"response metadata": {header: metadata.Pairs("via", "proxy")},
		"error code": {unary: onError(codes.InvalidArgument, func(err error) error {
			return status.Error(codes.Unknown, status.Convert(err).Message())
		})},
		"error text": {unary: onError(codes.OutOfRange, func(err error) error {
			return status.Error(codes.OutOfRange, status.Convert(err).Message()+".")
		})},
		"error hidden": {unary: onError(codes.NotFound, func(error) error { return nil })},
		"error made up": {unary: func(method string, reply proto.Message, err error) error {
			if method == pb.KV_Compact_FullMethodName {
				return status.Error(codes.Unavailable, "later")
			}
			return err
		}},
		"lease keys": {unary: onReply(func(r *pb.LeaseTimeToLiveResponse) { r.Keys = nil })},
		"lease ttl":  {unary: onReply(func(r *pb.LeaseTimeToLiveResponse) { r.TTL /= 2 })},
		"leases":     {unary: onReply(func(r *pb.LeaseLeasesResponse) { r.Leases = nil })},
		"keep alive": {stream: onMessage(func(m *pb.LeaseKeepAliveResponse) (bool, bool) { m.TTL--; return false, false })},
		"stream value": {stream: onMessage(func(m *pb.RangeStreamResponse) (bool, bool) {
			for _, kv := range m.RangeResponse.Kvs {
				flip(kv.Value)
			}
			return false, false
		})},
		"stream chunk": {stream: onMessage(func(m *pb.RangeStreamResponse) (bool, bool) { return m.RangeResponse.Header == nil, false })},
		"stream headers": {stream: onMessage(func(m *pb.RangeStreamResponse) (bool, bool) {
			if m.RangeResponse.Header == nil {
				m.RangeResponse.Header = &pb.ResponseHeader{}
			}
			return false, false
		})},
		"event value": {stream: onEvent(func(e *mvccpb.Event) {
			if isSealed(e.Kv) {
				flip(e.Kv.Value)
			}
		})},
		"event prev_kv":    {stream: onEvent(func(e *mvccpb.Event) { e.PrevKv = nil })},
		"event prev value": {stream: onEvent(func(e *mvccpb.Event) { flip(e.GetPrevKv().GetValue()) })},
		"event type":       {stream: onEvent(func(e *mvccpb.Event) { e.Type = mvccpb.Event_PUT })},
		"event lost": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) {
			return len(m.Events) > 0 && m.Events[0].Kv.ModRevision%7 == 0, false
		})},
		"event twice": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) {
			return false, len(m.Events) > 0 && m.Events[0].Kv.ModRevision%7 == 0
		})},
		"event header": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) {
			if len(m.Events) > 0 {
				m.Header.Revision = 1
			}
			return false, false
		})},
		"watch id": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) {
			if m.WatchId > 1 {
				m.WatchId--
			}
			return false, false
		})},
		"created revision": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) {
			if m.Created {
				m.Header.Revision++
			}
			return false, false
		})},
		"cancel reason": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) {
			m.CancelReason = strings.TrimPrefix(m.CancelReason, "mvcc: ")
			return false, false
		})},
		"compact revision": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) { m.CompactRevision = 0; return false, false })},
		"cancel twice":     {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) { return false, m.Canceled && !m.Created })},
		"progress early": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) {
			if m.WatchId == -1 && !m.Created {
				m.Header.Revision++
			}
			return false, false
		})},
		"progress never": {stream: onMessage(func(m *pb.WatchResponse) (bool, bool) { return m.WatchId == -1 && !m.Created, false })},
	} {
		t.Run(name, func(t *testing.T) {
			fault.ClientConnInterface, fault.injected = dial(t, startEtcd(t)), new(atomic.Int64)
			cfg := Config{Reference: dial(t, startEtcd(t)), Subject: fault, Sealed: sealed, Seed: 1, Operations: 4000}
			if name == "progress never" {
				cfg.Patience = 5 * time.Second
			}
			err := Run(t.Context(), cfg)
			var m *Mismatch
			if !errors.As(err, &m) {
				t.Fatalf("the fault was planted %d times and the run ended with %v, want a Mismatch", fault.injected.Load(), err)
			}
			if fault.injected.Load() == 0 {
				t.Errorf("no fault was planted, and yet: %v", m)
			}
		})
	}
}
