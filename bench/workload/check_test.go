package workload

import (
	"bytes"
	"context"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/benchtest"
	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

func TestCompare(t *testing.T) {
	plain, other := random(1, small), random(2, small)
	key := testKey(t)
	sealed := key.Seal(nil, []byte("key"), plain)
	for _, c := range []struct {
		name      string
		got, held []byte
		sealed    bool
		want      int // bytes more than the value; negative for an error
	}{
		{"plaintext", plain, plain, false, 0},
		{"an envelope", plain, sealed, true, envelope.Overhead},
		{"another value for a client", other, plain, false, -1},
		{"an envelope for a client", sealed, sealed, true, -1},
		{"an envelope for plaintext", plain, sealed, false, -1},
		{"plaintext for an envelope", plain, plain, true, -1},
		{"another plaintext", plain, other, false, -1},
		{"the magic before plaintext", plain, append([]byte(envelopeMagic), plain...), true, -1},
		{"an envelope with a readable part", plain, append(bytes.Clone(sealed), plain[small/2:small/2+small/parts]...), true, -1},
		{"an envelope with a readable end", plain, append(bytes.Clone(sealed), plain[small-small/parts:]...), true, -1},
	} {
		overhead, err := compare(c.got, c.held, plain, c.sealed)
		if (err != nil) != (c.want < 0) || err == nil && overhead != c.want {
			t.Errorf("%s: %d bytes more, %v, want %d", c.name, overhead, err, c.want)
		}
	}
}

// TestCheckSealed checks values that are sealed and opened between the client and etcd.
func TestCheckSealed(t *testing.T) {
	target, _ := benchtest.Etcd(t)
	target.Sealed = true
	conn, direct := sealing(t, target, true), dial(t, target)
	for _, w := range All {
		if w.Name != Get && w.Name != Put && w.Name != Stream {
			continue // the others' writes do not pass the interceptors
		}
		p, err := w.Prepare(t.Context(), target, conn, target.Prefix(0)+w.Short+"/")
		if err != nil {
			t.Fatal(err)
		}
		if overhead, err := p.Check(t.Context(), conn, direct); overhead != envelope.Overhead || err != nil {
			t.Errorf("%s: %d bytes more than the value, %v, want %d", w.Name, overhead, err, envelope.Overhead)
		}
	}
}

// TestStreamSeesEnvelopes has envelopes come through in streams alone.
func TestStreamSeesEnvelopes(t *testing.T) {
	target, _ := benchtest.Etcd(t)
	target.Sealed = true
	opening, passing, direct := sealing(t, target, true), sealing(t, target, false), dial(t, target)
	if _, err := prepareStream(t.Context(), target, passing, target.Prefix(0)); err == nil || !strings.Contains(err.Error(), "an envelope: true") {
		t.Errorf("preparing with streams of envelopes: %v", err)
	}
	p, err := prepareStream(t.Context(), target, opening, target.Prefix(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Check(t.Context(), passing, direct); err == nil {
		t.Error("streams of envelopes pass the check")
	}
	// What is measured is not decoded, so it passes no interceptor's opening.
	if err := p.Call(t.Context(), opening); err == nil || !strings.Contains(err.Error(), "checking answer") {
		t.Errorf("a stream of envelopes is measured: %v", err)
	}
}

// TestMixedChecksEverything changes one value of each kind behind the target's back.
func TestMixedChecksEverything(t *testing.T) {
	target, conn := benchtest.Etcd(t)
	kv := pb.NewKVClient(conn)
	for i, key := range []string{"kept/000007", "txn/000001"} {
		for _, others := range []bool{false, true} {
			prefix := target.Prefix(i) + map[bool]string{false: "a/", true: "b/"}[others]
			p, err := prepareMixed(t.Context(), target, conn, prefix)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Check(t.Context(), conn, conn); err != nil {
				t.Fatal(err)
			}
			if others {
				prefix = rig.PlainPrefix + "mixed/" + strings.TrimPrefix(prefix, rig.PlainPrefix)
			}
			put, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte(prefix + key), Value: random(9999, small), PrevKv: true})
			if err != nil {
				t.Fatal(err)
			}
			if put.PrevKv == nil {
				t.Errorf("%s%s did not exist: nothing of its kind was checked", prefix, key)
			}
			if _, err := p.Check(t.Context(), conn, conn); err == nil {
				t.Errorf("another value of %s%s passes", prefix, key)
			}
		}
	}
}

// TestCheckMissesObjects takes an object away that transactions have made.
func TestCheckMissesObjects(t *testing.T) {
	target, conn := benchtest.Etcd(t)
	l := newLife(target.Prefix(0), false)
	if _, err := l.check(t.Context(), conn, conn); err != nil {
		t.Fatal(err)
	}
	gone, err := pb.NewKVClient(conn).DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte(l.prefix), RangeEnd: endOfPrefix(l.prefix)})
	if err != nil || gone.Deleted != 1 {
		t.Fatalf("deleted %d objects, %v, want the one that the check created", gone.GetDeleted(), err)
	}
	if _, err := l.check(t.Context(), conn, conn); err == nil {
		t.Error("an object that is gone passes")
	}
}

func testKey(t *testing.T) *envelope.Key {
	t.Helper()
	dek := make([]byte, envelope.KeySize)
	key, err := envelope.NewKey(envelope.DeriveID(dek, dek, "bench"), dek)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func dial(t *testing.T, target *rig.Target, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	pool, err := load.Dial(target.Address, 1, append(target.Dial(), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool.Conn(0)
}

// sealing is a client in which values are sealed and opened again, those of streams only if wanted.
func sealing(t *testing.T, target *rig.Target, streams bool) *grpc.ClientConn {
	t.Helper()
	key := testKey(t)
	opts := []grpc.DialOption{grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if put, ok := req.(*pb.PutRequest); ok {
				req = &pb.PutRequest{Key: put.Key, Value: key.Seal(nil, put.Key, put.Value)}
			}
			if err := invoke(ctx, method, req, reply, conn, opts...); err != nil {
				return err
			}
			return open(key, reply)
		})}
	if streams {
		opts = append(opts, grpc.WithStreamInterceptor(
			func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, start grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				stream, err := start(ctx, desc, conn, method, opts...)
				return opened{stream, key}, err
			}))
	}
	return dial(t, target, opts...)
}

// opened is a stream whose values are opened.
type opened struct {
	grpc.ClientStream
	key *envelope.Key
}

func (s opened) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	return open(s.key, m)
}

// open opens the values of a decoded answer.
func open(key *envelope.Key, m any) (err error) {
	var kvs []*mvccpb.KeyValue
	switch m := m.(type) {
	case *pb.RangeResponse:
		kvs = m.Kvs
	case *pb.RangeStreamResponse:
		kvs = m.RangeResponse.GetKvs()
	}
	for _, kv := range kvs {
		if kv.Value, err = key.OpenTo(nil, kv.Value, kv.Key); err != nil {
			return err
		}
	}
	return nil
}
