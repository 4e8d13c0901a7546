package workload

import (
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/bench/benchtest"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// TestWorkloads makes every workload's calls, several at once, to an etcd that nothing stands before.
func TestWorkloads(t *testing.T) {
	target, conn := benchtest.Etcd(t)
	for i, w := range All {
		t.Run(w.Short, func(t *testing.T) {
			p, err := w.Prepare(t.Context(), target, conn, target.Prefix(i))
			if err != nil {
				t.Fatal(err)
			}
			var workers sync.WaitGroup
			for range 4 {
				workers.Go(func() {
					for range 10 {
						if err := p.Call(t.Context(), conn); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			workers.Wait()
			if overhead, err := p.Check(t.Context(), conn, conn); err != nil || overhead != 0 {
				t.Errorf("check: %d bytes more than the value, %v, want none", overhead, err)
			}
		})
	}
}

// TestCheckSeesPlaintext has etcd hold as plaintext what is said to be sealed, and the other way round.
func TestCheckSeesPlaintext(t *testing.T) {
	target, conn := benchtest.Etcd(t)
	for _, w := range All[:3] {
		target.Sealed = true
		p, err := w.Prepare(t.Context(), target, conn, target.Prefix(0)+w.Short+"/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Check(t.Context(), conn, conn); err == nil {
			t.Errorf("%s: plaintext passes for sealed", w.Name)
		}
	}
}

// TestTransactionsLive follows one object.
func TestTransactionsLive(t *testing.T) {
	target, conn := benchtest.Etcd(t)
	l := newLife(target.Prefix(0), false)
	kv := pb.NewKVClient(conn)
	for i, want := range []struct {
		exists  bool
		version int64
	}{{true, 1}, {true, 2}, {false, 0}, {true, 1}} {
		if err := l.call(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		got, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte(l.prefix + "000001")})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Kvs) == 1 != want.exists || want.exists && got.Kvs[0].Version != want.version {
			t.Errorf("after %d transactions etcd holds %v, want %+v", i+1, got.Kvs, want)
		}
	}
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte(l.prefix + "000001")}); err != nil {
		t.Fatal(err)
	}
	if err := l.call(t.Context(), conn); err == nil {
		t.Error("a transaction on an object that somebody else changed passes")
	}
}

// TestListsRestart compacts etcd while readers are in the middle of their lists.
func TestListsRestart(t *testing.T) {
	target, conn := benchtest.Etcd(t)
	p, err := prepareList(paged, small)(t.Context(), target, conn, target.Prefix(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Call(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	kv := pb.NewKVClient(conn)
	put, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("later")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: put.Header.Revision}); err != nil {
		t.Fatal(err)
	}
	if err := p.Call(t.Context(), conn); err == nil {
		t.Error("the second page was read at a revision that is gone: it was not the first one's")
	}
	p.Restart()
	for range paged / limit {
		if err := p.Call(t.Context(), conn); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
}

func TestStreamsAreNotForTheGRPCProxy(t *testing.T) {
	for _, w := range All {
		if got, want := w.For(rig.GRPCProxy), w.Name != Stream; got != want || !w.For(rig.Sealing) {
			t.Errorf("%s is for grpc-proxy: %t, want %t", w.Name, got, want)
		}
	}
}
