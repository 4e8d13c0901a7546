package proxy_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// TestCompareAndSwapCounts has many clients count up keys by comparing their values.
// Each success counts, and nothing else.
func TestCompareAndSwapCounts(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	const workers, each, keys = 12, 15, 3
	for k := range keys {
		_, err := l.client.Put(ctx, fmt.Sprint(sealedPrefix, "n", k), "0")
		must(t, err)
	}
	kv := pb.NewKVClient(l.conn(t))
	var done [keys]atomic.Int64
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := range each {
				k := (w + i) % keys
				for !countUp(ctx, t, kv, fmt.Sprint(sealedPrefix, "n", k)) {
					if ctx.Err() != nil {
						t.Error(ctx.Err())
						return
					}
				}
				done[k].Add(1)
			}
		})
	}
	wait.Wait()
	for k := range keys {
		key := fmt.Sprint(sealedPrefix, "n", k)
		r, err := l.client.Get(ctx, key)
		must(t, err)
		if got := string(r.Kvs[0].Value); got != fmt.Sprint(done[k].Load()) || r.Kvs[0].Version != 1+done[k].Load() {
			t.Errorf("%s is %s at version %d after %d swaps", key, got, r.Kvs[0].Version, done[k].Load())
		}
		if !envelope.Is(l.stored(t, key)) {
			t.Errorf("%s is not sealed", key)
		}
	}
}

// countUp makes one try.
func countUp(ctx context.Context, t *testing.T, kv pb.KVClient, key string) bool {
	r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		t.Error(err)
		return true
	}
	old := string(r.Kvs[0].Value)
	n, _ := strconv.Atoi(old)
	swap, err := kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(old)}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(strconv.Itoa(n + 1))}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}},
	})
	if status.Code(err) == codes.Unavailable {
		return false // nothing was done
	}
	if err != nil {
		t.Error(err)
		return true
	}
	if !swap.Succeeded {
		now := swap.Responses[0].GetResponseRange().Kvs[0]
		if string(now.Value) == old {
			t.Errorf("a swap from %s failed while it was %s", old, now.Value)
		}
	}
	return swap.Succeeded
}

// TestRangesMoveTogether has clients move several keys from one common value to the
// next if all of them have the first one, while others take one of the keys away
// under the same condition, and others look. Nobody may ever see two values, and the
// value is the number of moves.
func TestRangesMoveTogether(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	const movers, moves = 6, 12
	together := &together{kv: pb.NewKVClient(l.conn(t)), prefix: sealedPrefix + "m/"}
	_, err := together.txn(ctx, nil, together.set(0), nil)
	must(t, err)
	var moved atomic.Int64
	var moving, others sync.WaitGroup
	stop := make(chan struct{})
	for range movers {
		moving.Go(func() {
			for n := 0; n < moves && ctx.Err() == nil; {
				if ok, err := together.move(ctx); err != nil && status.Code(err) != codes.Unavailable {
					t.Error(err)
					return
				} else if ok {
					n++
					moved.Add(1)
				}
			}
		})
	}
	for _, other := range []func(context.Context) error{together.look, together.take} {
		others.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-stop:
					return
				default:
				}
				if err := other(ctx); err != nil && status.Code(err) != codes.Unavailable {
					t.Error(err)
					return
				}
			}
		})
	}
	moving.Wait()
	close(stop)
	others.Wait()
	now, _, err := together.read(ctx)
	must(t, err)
	if now != moved.Load() || now != movers*moves {
		t.Errorf("the value is %d after %d moves, want %d", now, moved.Load(), movers*moves)
	}
}

// together is some keys that are to have one value.
type together struct {
	kv     pb.KVClient
	prefix string
}

func (g *together) txn(ctx context.Context, is *int64, then, otherwise []*pb.RequestOp) (*pb.TxnResponse, error) {
	t := &pb.TxnRequest{Success: then, Failure: otherwise}
	if is != nil {
		t.Compare = []*pb.Compare{{Key: []byte(g.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(g.prefix)), Target: pb.Compare_VALUE,
			TargetUnion: &pb.Compare_Value{Value: []byte(fmt.Sprint(*is))}}}
	}
	return g.kv.Txn(ctx, t)
}

func (g *together) set(to int64) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for _, k := range []string{"a", "b", "c"} {
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(g.prefix + k), Value: []byte(fmt.Sprint(to))}}})
	}
	return ops
}

// all reads them in the order of their values.
func (g *together) all() *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(g.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(g.prefix)), SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_DESCEND}
}

func (g *together) read(ctx context.Context) (value int64, count int, _ error) {
	r, err := g.kv.Range(ctx, g.all())
	if err != nil {
		return 0, 0, err
	}
	return common(r)
}

// common is the one value of an answer.
func common(r *pb.RangeResponse) (int64, int, error) {
	if len(r.Kvs) == 0 {
		return 0, 0, fmt.Errorf("no key is left at revision %d", r.Header.Revision)
	}
	for _, kv := range r.Kvs {
		if string(kv.Value) != string(r.Kvs[0].Value) {
			return 0, 0, fmt.Errorf("two values at revision %d: %v", r.Header.Revision, r.Kvs)
		}
	}
	n, err := strconv.ParseInt(string(r.Kvs[0].Value), 10, 64)
	return n, len(r.Kvs), err
}

func (g *together) move(ctx context.Context) (bool, error) {
	from, _, err := g.read(ctx)
	if err != nil {
		return false, err
	}
	r, err := g.txn(ctx, &from, g.set(from+1), []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: g.all()}}})
	if err != nil || r.Succeeded {
		return err == nil, err
	}
	now, _, err := common(r.Responses[0].GetResponseRange())
	if err == nil && now <= from {
		err = fmt.Errorf("not moved from %d though it was %d at revision %d", from, now, r.Header.Revision)
	}
	return false, err
}

// take deletes one of several, which the next move puts back.
func (g *together) take(ctx context.Context) error {
	now, count, err := g.read(ctx)
	if err != nil || count < 3 {
		return err
	}
	_, err = g.txn(ctx, &now, []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(g.prefix + "a")}}}}, nil)
	return err
}

// look reads under a condition, and without writing.
func (g *together) look(ctx context.Context) error {
	now, _, err := g.read(ctx)
	if err != nil {
		return err
	}
	read := []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: g.all()}}}
	r, err := g.txn(ctx, &now, read, read)
	if err != nil {
		return err
	}
	then, _, err := common(r.Responses[0].GetResponseRange())
	if err == nil && r.Succeeded != (then == now) {
		err = fmt.Errorf("compared with %d: %v, but it was %d at revision %d", now, r.Succeeded, then, r.Header.Revision)
	}
	return err
}

// TestCallsToEtcd counts them where they arrive.
func TestCallsToEtcd(t *testing.T) {
	counter := &rpcCounter{}
	l := newLab(t, setup{etcdURL: startEtcdWith(t, nil, grpc.StatsHandler(counter))})
	ctx := bounded(t)
	key := sealedPrefix + "a"
	_, err := l.client.Put(ctx, key, "0")
	must(t, err)
	swap := func(c clientv3.Cmp, i int) {
		r, err := l.client.Txn(ctx).If(c).Then(clientv3.OpPut(key, fmt.Sprint(i+1)), clientv3.OpGet(key)).Else(clientv3.OpGet(key)).Commit()
		must(t, err)
		if !r.Succeeded {
			t.Errorf("swap %d failed: %v", i, r.Responses)
		}
	}
	swap(clientv3.Compare(clientv3.Value(key), "=", "0"), 0) // makes the connection
	const n = 20
	before := counter.kv.Load()
	for i := range n {
		swap(clientv3.Compare(clientv3.Version(key), "=", i+2), i)
	}
	plain := counter.kv.Load() - before
	for i := range n {
		swap(clientv3.Compare(clientv3.Value(key), "=", fmt.Sprint((n+i-1)%n+1)), i)
	}
	assisted := counter.kv.Load() - before - plain
	t.Logf("%d transactions took %d calls to etcd in their plain form and %d comparing by value", n, plain, assisted)
	if plain != n || 2*assisted > 5*plain {
		t.Errorf("%d transactions took %d calls to etcd, in their plain form %d", n, assisted, plain)
	}
	for name, call := range map[string]func() error{
		"get":  func() error { _, err := l.client.Get(ctx, key); return err },
		"put":  func() error { _, err := l.client.Put(ctx, key, "v"); return err },
		"list": func() error { _, err := l.client.Get(ctx, sealedPrefix, clientv3.WithPrefix()); return err },
	} {
		before := counter.kv.Load()
		for range n {
			must(t, call())
		}
		if took := counter.kv.Load() - before; took != n {
			t.Errorf("%d calls (%s) took %d to etcd", n, name, took)
		}
	}
}

// rpcCounter counts the requests that etcd's KV service gets. Streams that are reset
// before they bring one, as those of assisted calls are, do nothing.
type rpcCounter struct{ kv atomic.Int64 }

type isKV struct{}

func (c *rpcCounter) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, isKV{}, strings.HasPrefix(info.FullMethodName, "/etcdserverpb.KV/"))
}

func (c *rpcCounter) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.InPayload); ok && ctx.Value(isKV{}) == true {
		c.kv.Add(1)
	}
}

func (c *rpcCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (c *rpcCounter) HandleConn(context.Context, stats.ConnStats) {}

// TestShutdownWaitsForAssistedCalls begins while the first of the two inner calls is
// under way; the second one must still be possible.
func TestShutdownWaitsForAssistedCalls(t *testing.T) {
	fake := kektest.NewFake("k", "v1")
	first := newLab(t, setup{kek: fake})
	ctx := bounded(t)
	key := sealedPrefix + "a"
	_, err := first.client.Put(ctx, key, "sealed")
	must(t, err)
	l := newLab(t, setup{etcdURL: first.etcdURL, kek: fake, grace: boundedFor})
	release := fake.Block(kek.OpUnwrap)
	defer release()
	var waiting sync.WaitGroup
	waiting.Go(func() {
		r, err := pb.NewKVClient(l.conn(t)).Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("sealed")}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}},
		})
		if err != nil || !r.Succeeded || string(r.Responses[0].GetResponseRange().Kvs[0].Value) != "sealed" {
			t.Errorf("during a shutdown: %v, %v", r, err)
		}
	})
	must(t, fake.AwaitBlocked(ctx, kek.OpUnwrap, 1))
	waiting.Go(l.shutdown)
	for { // until it has begun
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			break
		}
		conn.Close()
	}
	release()
	waiting.Wait()
}
