package proxy_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/kek/local"
	"github.com/etcdseal/etcdseal/proxy"
)

// TestOneCallsKMSHoldsUpNoOther has a KEK that does not answer: calls that need
// it wait, everything else on the same connection goes on.
func TestOneCallsKMSHoldsUpNoOther(t *testing.T) {
	fake := kektest.NewFake("k", "v1")
	first := newLab(t, setup{kek: fake})
	ctx := bounded(t)
	_, err := first.client.Put(ctx, sealedPrefix+"a", "sealed")
	must(t, err)
	l := newLab(t, setup{etcdURL: first.etcdURL, kek: fake})
	kv := etcdserverpb.NewKVClient(l.conn(t)) // one connection for everything
	_, err = kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte("/free")})
	must(t, err)
	release := fake.Block(kek.OpUnwrap, kek.OpWrap)
	defer release()
	var waiting sync.WaitGroup
	big := strings.Repeat("x", 1<<20)
	for i := range 16 {
		waiting.Go(func() {
			if _, err := kv.Put(ctx, &etcdserverpb.PutRequest{Key: fmt.Appendf(nil, "%sbig%d", sealedPrefix, i), Value: []byte(big)}); err != nil {
				t.Errorf("put %d: %v", i, err)
			}
		})
	}
	waiting.Go(func() {
		got, err := kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(sealedPrefix + "a")})
		if err != nil || string(got.Kvs[0].Value) != "sealed" {
			t.Errorf("get: %v", err)
		}
	})
	must(t, fake.AwaitBlocked(ctx, kek.OpUnwrap, 1))
	must(t, fake.AwaitBlocked(ctx, kek.OpWrap, 1))
	for i := range 20 {
		key := fmt.Appendf(nil, "/free/%d", i)
		_, err := kv.Put(ctx, &etcdserverpb.PutRequest{Key: key, Value: []byte(big)})
		must(t, err)
		got, err := kv.Range(ctx, &etcdserverpb.RangeRequest{Key: key})
		if err != nil || string(got.Kvs[0].Value) != big {
			t.Fatalf("a key under no rule: %v", err)
		}
	}
	release()
	waiting.Wait()
}

func TestKMSErrorsReachTheClient(t *testing.T) {
	for class, code := range map[kek.Class]codes.Code{
		kek.Denied: codes.FailedPrecondition, kek.Disabled: codes.FailedPrecondition, kek.NotFound: codes.FailedPrecondition,
		kek.Throttled: codes.Unavailable, kek.Unavailable: codes.Unavailable,
	} {
		t.Run(class.String(), func(t *testing.T) {
			fake := kektest.NewFake("k", "v1")
			fake.Fail(class, kek.OpWrap)
			l := newLab(t, setup{kek: fake})
			_, err := etcdserverpb.NewKVClient(l.conn(t)).Put(bounded(t), &etcdserverpb.PutRequest{Key: []byte(sealedPrefix + "a"), Value: []byte("v")})
			wantStatus(t, err, code, "etcdseal: ", sealedPrefix+"a")
			if l.stored(t, sealedPrefix+"a") != nil {
				t.Error("the value was stored")
			}
		})
	}
}

// TestAWatchEndsAlone plants an envelope that cannot be opened: the watch that
// sees it is cancelled, once, and the others on the stream go on.
func TestAWatchEndsAlone(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	_, err := l.client.Put(ctx, sealedPrefix+"a", "one")
	must(t, err)
	broken := l.stored(t, sealedPrefix+"a")
	broken[40] ^= 1
	stream, err := etcdserverpb.NewWatchClient(l.conn(t)).Watch(ctx)
	must(t, err)
	for i, key := range []string{"a", "b"} {
		must(t, stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
			CreateRequest: &etcdserverpb.WatchCreateRequest{Key: []byte(sealedPrefix + key), WatchId: int64(i + 1)},
		}}))
		if r, err := stream.Recv(); err != nil || !r.Created {
			t.Fatalf("creating a watch: %v, %v", r, err)
		}
	}
	_, err = l.direct.Put(ctx, sealedPrefix+"a", string(broken))
	must(t, err)
	_, err = l.client.Put(ctx, sealedPrefix+"a", "after it")
	must(t, err)
	_, err = l.client.Put(ctx, sealedPrefix+"b", "two")
	must(t, err)
	r, err := stream.Recv()
	if err != nil || !r.Canceled || r.WatchId != 1 || !strings.Contains(r.CancelReason, sealedPrefix+"a") {
		t.Fatalf("after a broken event: %v, %v", r, err)
	}
	r, err = stream.Recv()
	if err != nil || r.WatchId != 2 || string(r.Events[0].Kv.Value) != "two" {
		t.Fatalf("the other watch: %v, %v", r, err)
	}
	// The number is free again.
	must(t, stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
		CreateRequest: &etcdserverpb.WatchCreateRequest{Key: []byte(sealedPrefix + "c"), WatchId: 1},
	}}))
	if r, err := stream.Recv(); err != nil || !r.Created || r.WatchId != 1 {
		t.Fatalf("a new watch of the same number: %v, %v", r, err)
	}
	_, err = l.client.Put(ctx, sealedPrefix+"c", "three")
	must(t, err)
	if r, err := stream.Recv(); err != nil || string(r.Events[0].Kv.Value) != "three" {
		t.Fatalf("its event: %v, %v", r, err)
	}
}

// TestOneWatchWaitsAlone has one watch's event wait for the KEK, while another
// watch of the same stream goes on and a progress notification does not
// overtake.
func TestOneWatchWaitsAlone(t *testing.T) {
	fake := kektest.NewFake("k", "v1")
	first := newLab(t, setup{kek: fake})
	l := newLab(t, setup{etcdURL: first.etcdURL, kek: fake})
	ctx := bounded(t)
	release := fake.Block(kek.OpUnwrap)
	defer release()
	stream, err := etcdserverpb.NewWatchClient(l.conn(t)).Watch(ctx)
	must(t, err)
	for i, key := range []string{sealedPrefix + "a", "/free"} {
		must(t, stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
			CreateRequest: &etcdserverpb.WatchCreateRequest{Key: []byte(key), WatchId: int64(i + 1)},
		}}))
		if r, err := stream.Recv(); err != nil || !r.Created {
			t.Fatalf("creating a watch: %v, %v", r, err)
		}
	}
	release() // the first process proves its DEK by an unwrap
	_, err = first.client.Put(ctx, sealedPrefix+"warm", "x")
	must(t, err)
	release = fake.Block(kek.OpUnwrap)
	_, err = first.client.Put(ctx, sealedPrefix+"a", "sealed")
	must(t, err)
	must(t, fake.AwaitBlocked(ctx, kek.OpUnwrap, 1))
	_, err = first.client.Put(ctx, "/free", "open")
	must(t, err)
	if r, err := stream.Recv(); err != nil || r.WatchId != 2 || string(r.Events[0].Kv.Value) != "open" {
		t.Fatalf("the watch that needs no key: %v, %v", r, err)
	}
	must(t, stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_ProgressRequest{
		ProgressRequest: &etcdserverpb.WatchProgressRequest{},
	}}))
	release()
	if r, err := stream.Recv(); err != nil || r.WatchId != 1 || string(r.Events[0].Kv.Value) != "sealed" {
		t.Fatalf("the watch that waited: %v, %v", r, err)
	}
	if r, err := stream.Recv(); err != nil || r.WatchId != -1 {
		t.Fatalf("the progress notification: %v, %v", r, err)
	}
}

func TestTwoProxiesReadEachOther(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "kek.key")
	must(t, local.Generate(keyFile))
	a := newLab(t, setup{keyFile: keyFile})
	b := newLab(t, setup{keyFile: keyFile, etcdURL: a.etcdURL})
	ctx := bounded(t)
	_, err := a.client.Put(ctx, sealedPrefix+"a", "from a")
	must(t, err)
	_, err = b.client.Put(ctx, sealedPrefix+"b", "from b")
	must(t, err)
	for _, l := range []*lab{a, b} {
		all, err := l.client.Get(ctx, sealedPrefix, clientv3.WithPrefix())
		must(t, err)
		if got := string(all.Kvs[0].Value) + ", " + string(all.Kvs[1].Value); got != "from a, from b" {
			t.Errorf("got %q", got)
		}
	}
	if string(a.stored(t, sealedPrefix+"a")[4:20]) == string(a.stored(t, sealedPrefix+"b")[4:20]) {
		t.Error("two processes seal with one DEK")
	}
}

// TestAnOpenWatchFollowsTheRules puts a rule in force for keys that are watched
// already, as rolling out does.
func TestAnOpenWatchFollowsTheRules(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	watching := l.client.Watch(ctx, "/registry/configmaps/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := <-watching; !r.Created {
		t.Fatalf("creating a watch: %v", r.Err())
	}
	sealer, err := l.keyring.Sealer("k", nil)
	must(t, err)
	l.server.SetRules(proxy.NewRules([]proxy.Rule{{Prefix: "/registry/configmaps/", Sealer: sealer}}))
	_, err = l.client.Put(ctx, "/registry/configmaps/a", "plain")
	must(t, err)
	if r := <-watching; len(r.Events) != 1 || string(r.Events[0].Kv.Value) != "plain" {
		t.Errorf("the watch shows %q, %v", r.Events, r.Err())
	}
}
