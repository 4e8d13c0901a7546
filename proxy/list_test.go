package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// TestListsOfManySizes reads values whose lengths take fewer bytes when they are
// opened, in lists of one frame and of many.
func TestListsOfManySizes(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	want := map[string]string{}
	for i := range 300 {
		key := fmt.Sprintf("%s%s/%03d", sealedPrefix, strings.Repeat("n", i%40), i)
		want[key] = strings.Repeat(string(rune('a'+i%26)), i*i%2111)
		_, err := l.client.Put(ctx, key, want[key])
		must(t, err)
	}
	_, err := l.client.Put(ctx, "/registry/pods/a", "open")
	must(t, err)
	for _, limit := range []int64{1, 7, 60, 0} {
		for from := ""; ; {
			page, err := l.client.Get(ctx, sealedPrefix+from, clientv3.WithRange("/registry/secrets0"), clientv3.WithLimit(limit))
			must(t, err)
			for _, kv := range page.Kvs {
				if string(kv.Value) != want[string(kv.Key)] {
					t.Fatalf("limit %d: %s has another value", limit, kv.Key)
				}
			}
			if !page.More {
				break
			}
			from = strings.TrimPrefix(string(page.Kvs[len(page.Kvs)-1].Key), sealedPrefix) + "\x00"
		}
	}
	kv := etcdserverpb.NewKVClient(l.conn(t))
	for name, list := range lists {
		got, err := list(ctx, kv, &etcdserverpb.RangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0")})
		if err != nil || len(got) != 301 || string(got[0].Value) != "open" {
			t.Fatalf("%s: a list with keys under no rule: %d keys, %v", name, len(got), err)
		}
		for _, kv := range got[1:] {
			if string(kv.Value) != want[string(kv.Key)] {
				t.Fatalf("%s: %s has another value", name, kv.Key)
			}
		}
	}
}

// lists are the ways to list keys.
var lists = map[string]func(context.Context, etcdserverpb.KVClient, *etcdserverpb.RangeRequest) ([]*mvccpb.KeyValue, error){
	"Range": func(ctx context.Context, kv etcdserverpb.KVClient, r *etcdserverpb.RangeRequest) ([]*mvccpb.KeyValue, error) {
		answer, err := kv.Range(ctx, r)
		return answer.GetKvs(), err
	},
	"RangeStream": func(ctx context.Context, kv etcdserverpb.KVClient, r *etcdserverpb.RangeRequest) ([]*mvccpb.KeyValue, error) {
		stream, err := kv.RangeStream(ctx, r)
		if err != nil {
			return nil, err
		}
		var kvs []*mvccpb.KeyValue
		for {
			chunk, err := stream.Recv()
			if err == io.EOF {
				return kvs, nil
			}
			if err != nil {
				return nil, err
			}
			kvs = append(kvs, chunk.GetRangeResponse().GetKvs()...)
		}
	},
}

// TestAListWhoseLastValueFails has the failure in the part of a large list that
// comes last, and in the part that comes first.
func TestAListWhoseLastValueFails(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	value := strings.Repeat("v", 1000)
	for i := range 200 {
		if i == 150 { // a value of which nothing is left when it is opened
			value = ""
		}
		_, err := l.client.Put(ctx, fmt.Sprintf("%s%03d", sealedPrefix, i), value)
		must(t, err)
	}
	kv := etcdserverpb.NewKVClient(l.conn(t))
	all := &etcdserverpb.RangeRequest{Key: []byte(sealedPrefix), RangeEnd: []byte("/registry/secrets0")}
	for _, i := range []int{199, 160, 100, 0} {
		key := fmt.Sprintf("%s%03d", sealedPrefix, i)
		broken := l.stored(t, key)
		broken[len(broken)/2] ^= 1
		_, err := l.direct.Put(ctx, key, string(broken))
		must(t, err)
		for _, list := range lists {
			_, err = list(ctx, kv, all)
			wantStatus(t, err, codes.DataLoss, key)
		}
	}
}

// TestAListThatWaitsInItsMiddle has a list whose later values are under a DEK that
// has to be unwrapped, after the earlier ones were opened already.
func TestAListThatWaitsInItsMiddle(t *testing.T) {
	fake := kektest.NewFake("k", "v1")
	a := newLab(t, setup{kek: fake})
	b := newLab(t, setup{kek: fake, etcdURL: a.etcdURL})
	reader := newLab(t, setup{kek: fake, etcdURL: a.etcdURL})
	ctx := bounded(t)
	value := bytes.Repeat([]byte("v"), 2000)
	for i := range 200 {
		writer := a
		if i >= 120 {
			writer = b
		}
		_, err := writer.client.Put(ctx, fmt.Sprintf("%s%03d", sealedPrefix, i), string(value))
		must(t, err)
	}
	_, err := reader.client.Get(ctx, sealedPrefix+"000")
	must(t, err)
	release := fake.Block(kek.OpUnwrap)
	defer release()
	type result struct {
		list *clientv3.GetResponse
		err  error
	}
	listed := make(chan result, 1)
	go func() {
		list, err := reader.client.Get(ctx, sealedPrefix, clientv3.WithPrefix())
		listed <- result{list, err}
	}()
	must(t, fake.AwaitBlocked(ctx, kek.OpUnwrap, 1))
	release()
	r := <-listed
	must(t, r.err)
	for _, kv := range r.list.Kvs {
		if !bytes.Equal(kv.Value, value) {
			t.Fatalf("%s has another value", kv.Key)
		}
	}
	if len(r.list.Kvs) != 200 {
		t.Errorf("got %d keys", len(r.list.Kvs))
	}
}
