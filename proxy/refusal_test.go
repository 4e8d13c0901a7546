package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy"
)

// conn is a plain gRPC connection, which shows codes and texts as they are.
func (l *lab) conn(t testing.TB) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(l.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// wantStatus checks an error's code, and that its text has all parts.
func wantStatus(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code {
		t.Errorf("got %v, want the code %v", err, code)
		return
	}
	for _, part := range parts {
		if !strings.Contains(st.Message(), part) {
			t.Errorf("%q does not name %q", st.Message(), part)
		}
	}
}

func TestBadEnvelopes(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	key, other := sealedPrefix+"a", sealedPrefix+"b"
	_, err := l.client.Put(ctx, key, "the secret")
	must(t, err)
	good := l.stored(t, key)
	change := func(f func([]byte) []byte) []byte { return f(slices.Clone(good)) }
	kv := etcdserverpb.NewKVClient(l.conn(t))
	for name, c := range map[string]struct {
		value []byte
		names string
	}{
		"truncated":      {change(func(b []byte) []byte { return b[:40] }), "truncated"},
		"flipped":        {change(func(b []byte) []byte { b[35] ^= 1; return b }), "authenticate"},
		"another key's":  {good, "authenticate"},
		"another DEK's":  {change(func(b []byte) []byte { b[4] ^= 1; return b }), fmt.Sprintf("%02x", good[4]^1)},
		"a version of 9": {change(func(b []byte) []byte { b[3] = 9; return b }), "version 9"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.direct.Put(ctx, other, string(c.value))
			must(t, err)
			_, err = kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(other)})
			wantStatus(t, err, codes.DataLoss, "etcdseal: ", other, c.names)
			_, err = kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(sealedPrefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(sealedPrefix))})
			wantStatus(t, err, codes.DataLoss, other)
			if _, err := kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(other), KeysOnly: true}); err != nil {
				t.Errorf("keys_only: %v", err)
			}
			put, err := kv.Put(ctx, &etcdserverpb.PutRequest{Key: []byte(other), Value: []byte("new"), PrevKv: true})
			if err == nil {
				t.Errorf("a put shows %q as the previous value", put.PrevKv.Value)
			}
			wantStatus(t, err, codes.DataLoss, other, fmt.Sprintf("applied at revision %d", l.revision(t, other)))
			if got, err := kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(other)}); err != nil || string(got.Kvs[0].Value) != "new" {
				t.Errorf("after a put that was applied: %v", err)
			}
		})
	}
}

func (l *lab) revision(t *testing.T, key string) int64 {
	t.Helper()
	r, err := l.direct.Get(bounded(t), key)
	must(t, err)
	return r.Kvs[0].ModRevision
}

func TestPlaintextDeny(t *testing.T) {
	l := newLab(t, setup{rule: proxy.Rule{DenyPlaintext: true}})
	ctx := bounded(t)
	_, err := l.direct.Put(ctx, sealedPrefix+"old", "plain")
	must(t, err)
	_, err = l.client.Get(ctx, sealedPrefix+"old")
	wantStatus(t, err, codes.FailedPrecondition, sealedPrefix+"old")
	_, err = l.direct.Put(ctx, sealedPrefix+"empty", "")
	must(t, err)
	if r, err := l.client.Get(ctx, sealedPrefix+"empty"); err != nil || len(r.Kvs[0].Value) != 0 {
		t.Errorf("an empty value: %v", err)
	}
}

func TestUnsealedRuleOpensAndWritesPlaintext(t *testing.T) {
	keyed := newLab(t, setup{})
	ctx := bounded(t)
	_, err := keyed.client.Put(ctx, sealedPrefix+"a", "sealed by another process")
	must(t, err)
	_, err = keyed.client.Put(ctx, sealedPrefix+"b", "\x00es\x01looks like an envelope")
	must(t, err)
	if got, err := keyed.client.Get(ctx, sealedPrefix+"b"); err != nil || string(got.Kvs[0].Value) != "\x00es\x01looks like an envelope" {
		t.Errorf("a value that looks like an envelope: %v", err)
	}
	keyed.server.SetRules(proxy.NewRules([]proxy.Rule{{Prefix: sealedPrefix}}))
	_, err = keyed.client.Put(ctx, sealedPrefix+"c", "plain")
	must(t, err)
	if got := keyed.stored(t, sealedPrefix+"c"); string(got) != "plain" {
		t.Errorf("etcd holds %q under seal: false", got)
	}
	if got, err := keyed.client.Get(ctx, sealedPrefix+"a"); err != nil || string(got.Kvs[0].Value) != "sealed by another process" {
		t.Errorf("opening under seal: false: %v", err)
	}
}

func TestPassthroughShowsTheUntouchedEnvelope(t *testing.T) {
	l := newLab(t, setup{rule: proxy.Rule{Passthrough: true}})
	ctx := bounded(t)
	_, err := l.client.Put(ctx, sealedPrefix+"a", strings.Repeat("x", 100))
	must(t, err)
	broken := l.stored(t, sealedPrefix+"a")
	broken[60] ^= 1
	_, err = l.direct.Put(ctx, sealedPrefix+"broken", string(broken))
	must(t, err)
	all, err := l.client.Get(ctx, sealedPrefix, clientv3.WithPrefix())
	must(t, err)
	if string(all.Kvs[0].Value) != strings.Repeat("x", 100) || !bytes.Equal(all.Kvs[1].Value, broken) {
		t.Errorf("got %q and %q", all.Kvs[0].Value, all.Kvs[1].Value)
	}
}

func TestReservedPrefixIsGuarded(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	_, err := l.client.Put(ctx, sealedPrefix+"a", "x")
	must(t, err)
	c := l.conn(t)
	kv := etcdserverpb.NewKVClient(c)
	put := &etcdserverpb.PutRequest{Key: []byte("/etcdseal/dek/x"), Value: []byte("v")}
	in := func(op *etcdserverpb.RequestOp) *etcdserverpb.TxnRequest {
		return &etcdserverpb.TxnRequest{Failure: []*etcdserverpb.RequestOp{op}}
	}
	putOp := &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: put}}
	leader := &v3electionpb.LeaderKey{Name: []byte("harmless"), Key: []byte("/etcdseal/dek/x")}
	election, lock := v3electionpb.NewElectionClient(c), v3lockpb.NewLockClient(c)
	for name, call := range map[string]func() error{
		"Put":                         func() error { _, err := kv.Put(ctx, put); return err },
		"DeleteRange":                 func() error { return del(ctx, kv, "/etcdseal/dek/x", "") },
		"DeleteRange over everything": func() error { return del(ctx, kv, "\x00", "\x00") },
		"DeleteRange around it":       func() error { return del(ctx, kv, "/etc", "/f") },
		"Txn":                         func() error { _, err := kv.Txn(ctx, in(putOp)); return err },
		"Txn in a Txn": func() error {
			_, err := kv.Txn(ctx, in(&etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestTxn{RequestTxn: in(putOp)}}))
			return err
		},
		"Lock":   func() error { _, err := lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("/etcdseal")}); return err },
		"Unlock": func() error { _, err := lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: put.Key}); return err },
		"Campaign": func() error {
			_, err := election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("/etcdseal/dek")})
			return err
		},
		"Proclaim": func() error {
			_, err := election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leader})
			return err
		},
		"Resign": func() error { _, err := election.Resign(ctx, &v3electionpb.ResignRequest{Leader: leader}); return err },
	} {
		t.Run(name, func(t *testing.T) { wantStatus(t, call(), codes.PermissionDenied, "/etcdseal/") })
	}
	if r, err := l.client.Get(ctx, "/etcdseal/", clientv3.WithPrefix()); err != nil || len(r.Kvs) != 1 {
		t.Errorf("reading the keyring: %v, %v", r, err)
	}
}

func del(ctx context.Context, kv etcdserverpb.KVClient, key, end string) error {
	_, err := kv.DeleteRange(ctx, &etcdserverpb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
	return err
}

// TestStreamsSortedByValueAreRefused has etcd's words for both spellings, since what
// etcd answers to the second one depends on how long the stored values are.
func TestStreamsSortedByValueAreRefused(t *testing.T) {
	l := newLab(t, setup{})
	for _, order := range []etcdserverpb.RangeRequest_SortOrder{etcdserverpb.RangeRequest_DESCEND, etcdserverpb.RangeRequest_NONE} {
		stream, err := etcdserverpb.NewKVClient(l.conn(t)).RangeStream(bounded(t), &etcdserverpb.RangeRequest{
			Key: []byte(sealedPrefix), RangeEnd: []byte("/s"), SortTarget: etcdserverpb.RangeRequest_VALUE, SortOrder: order,
		})
		must(t, err)
		_, err = stream.Recv()
		wantStatus(t, err, codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
}

func TestOtherSpellingsOfAMethodAreRefused(t *testing.T) {
	l := newLab(t, setup{allow: []string{"/my.Service/Method"}})
	ctx := bounded(t)
	c := l.conn(t)
	in, out := &etcdserverpb.PutRequest{Key: []byte(sealedPrefix + "raw"), Value: []byte("raw")}, &etcdserverpb.PutResponse{}
	for path, text := range map[string]string{
		"/etcdserverpb.KV/%50ut": "unknown method %50ut for service etcdserverpb.KV",
		"/etcdserverpb.KV/Put?x": "unknown method Put?x for service etcdserverpb.KV",
		"/etcdserverpb.KV/put":   "unknown method put for service etcdserverpb.KV",
		"//etcdserverpb.KV/Put":  "unknown service",
		"/some.Service/Put":      "unknown service some.Service",
		"/my.Service/Method":     "unknown service my.Service", // etcd's own words: it was forwarded
	} {
		wantStatus(t, c.Invoke(ctx, path, in, out), codes.Unimplemented, text)
	}
	if got := l.stored(t, sealedPrefix+"raw"); got != nil {
		t.Errorf("etcd holds %q", got)
	}
}

func TestCompressedCalls(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	kv := etcdserverpb.NewKVClient(l.conn(t))
	value := bytes.Repeat([]byte("compressible "), 10000)
	_, err := kv.Put(ctx, &etcdserverpb.PutRequest{Key: []byte(sealedPrefix + "z"), Value: value}, grpc.UseCompressor(gzip.Name))
	must(t, err)
	if !envelope.Is(l.stored(t, sealedPrefix+"z")) {
		t.Error("a compressed put was not sealed")
	}
	got, err := kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(sealedPrefix + "z")}, grpc.UseCompressor(gzip.Name))
	must(t, err)
	if !bytes.Equal(got.Kvs[0].Value, value) {
		t.Error("a compressed range shows another value")
	}
}

func TestValuesThatLookSealedAreRefusedWhereNothingIsSealed(t *testing.T) {
	l := newLab(t, setup{open: true})
	_, err := etcdserverpb.NewKVClient(l.conn(t)).Put(bounded(t), &etcdserverpb.PutRequest{Key: []byte(sealedPrefix + "a"), Value: []byte("\x00es\x01x")})
	wantStatus(t, err, codes.InvalidArgument, "etcdseal: ", sealedPrefix+"a")
	if l.stored(t, sealedPrefix+"a") != nil {
		t.Error("the value was stored")
	}
}

func TestASecondRequestOnAUnaryCallIsRefused(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	_, err := l.client.Put(ctx, sealedPrefix+"a", "sealed")
	must(t, err)
	stream, err := l.conn(t).NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/etcdserverpb.KV/Range")
	must(t, err)
	must(t, stream.SendMsg(&etcdserverpb.RangeRequest{Key: []byte(sealedPrefix + "a")}))
	if err := stream.SendMsg(&etcdserverpb.RangeRequest{Key: []byte("/other")}); err == nil {
		var got etcdserverpb.RangeResponse
		wantStatus(t, stream.RecvMsg(&got), codes.Internal, "cardinality violation")
	}
}

func TestLongKeysAreCutInErrors(t *testing.T) {
	l := newLab(t, setup{rule: proxy.Rule{DenyPlaintext: true}})
	ctx := bounded(t)
	key := sealedPrefix + strings.Repeat("k", 100000)
	_, err := l.direct.Put(ctx, key, "plain")
	must(t, err)
	_, err = l.client.Get(ctx, key)
	wantStatus(t, err, codes.FailedPrecondition, "100018 bytes")
}
