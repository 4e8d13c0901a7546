package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestComparingByValue compares values that are sealed, that are not sealed yet, and
// ranges of both.
func TestComparingByValue(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	a, b := sealedPrefix+"a", sealedPrefix+"b"
	_, err := l.client.Put(ctx, a, "m")
	must(t, err)
	_, err = l.direct.Put(ctx, b, "m") // from before the rule
	must(t, err)
	_, err = l.client.Put(ctx, "/registry/x", "m") // under no rule
	must(t, err)
	for name, c := range map[string]struct {
		cmp  clientv3.Cmp
		want bool
	}{
		"equal":                  {clientv3.Compare(clientv3.Value(a), "=", "m"), true},
		"less":                   {clientv3.Compare(clientv3.Value(a), "<", "m"), false},
		"greater":                {clientv3.Compare(clientv3.Value(a), ">", "l"), true},
		"not equal":              {clientv3.Compare(clientv3.Value(a), "!=", "m"), false},
		"stored in plain":        {clientv3.Compare(clientv3.Value(b), "=", "m"), true},
		"absent":                 {clientv3.Compare(clientv3.Value(a+"x"), "!=", "m"), false},
		"range":                  {clientv3.Compare(clientv3.Value(sealedPrefix), "=", "m").WithPrefix(), true},
		"range above the rule":   {clientv3.Compare(clientv3.Value("/registry/"), "=", "m").WithPrefix(), true},
		"range that is not all":  {clientv3.Compare(clientv3.Value("/registry/"), ">", "m").WithPrefix(), false},
		"empty range":            {clientv3.Compare(clientv3.Value(sealedPrefix+"z"), "!=", "m").WithPrefix(), false},
		"range to the last key":  {clientv3.Compare(clientv3.Value(sealedPrefix), "=", "m").WithRange("\x00"), true},
		"range that is inverted": {clientv3.Compare(clientv3.Value(b), "=", "m").WithRange(a), false},
	} {
		t.Run(name, func(t *testing.T) {
			out := sealedPrefix + "out"
			for _, then := range []clientv3.Op{clientv3.OpGet(a), clientv3.OpPut(out, name)} {
				r, err := l.client.Txn(ctx).If(c.cmp).Then(then).Commit()
				must(t, err)
				if r.Succeeded != c.want || len(r.Responses) == 1 != c.want {
					t.Errorf("succeeded is %v with %d answers, want %v", r.Succeeded, len(r.Responses), c.want)
				}
			}
			got, err := l.client.Delete(ctx, out, clientv3.WithPrevKV())
			must(t, err)
			if wrote := len(got.PrevKvs) == 1 && string(got.PrevKvs[0].Value) == name; wrote != c.want {
				t.Errorf("wrote: %v, want %v", got.PrevKvs, c.want)
			}
		})
	}
}

// TestComparedValueThatCannotBeOpened fails the call by its name, and does nothing.
func TestComparedValueThatCannotBeOpened(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	key := sealedPrefix + "a"
	_, err := l.client.Put(ctx, key, "m")
	must(t, err)
	broken := l.stored(t, key)
	broken[40] ^= 1
	_, err = l.direct.Put(ctx, key, string(broken))
	must(t, err)
	cmp := &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("m")}}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("/b"), Value: []byte("v")}}}
	kv := pb.NewKVClient(l.conn(t))
	_, err = kv.Txn(ctx, &pb.TxnRequest{Compare: []*pb.Compare{cmp}, Success: []*pb.RequestOp{put}, Failure: []*pb.RequestOp{put}})
	wantStatus(t, err, codes.DataLoss, "etcdseal: ", key)
	if strings.Contains(status.Convert(err).Message(), "applied") || l.stored(t, "/b") != nil {
		t.Errorf("the transaction was carried out: %v", err)
	}
	// What etcd itself would refuse, it refuses first.
	_, err = kv.Txn(ctx, &pb.TxnRequest{Compare: []*pb.Compare{cmp}, Success: []*pb.RequestOp{put, put}})
	wantStatus(t, err, codes.InvalidArgument, "etcdserver: duplicate key given in txn request")
}

// TestSortingByValue sorts by what clients see, with a limit.
func TestSortingByValue(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	for i, v := range []string{"d", "b", "c", "a"} {
		_, err := l.client.Put(ctx, fmt.Sprint(sealedPrefix, i), v)
		must(t, err)
	}
	options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend), clientv3.WithLimit(3)}
	alone, err := l.client.Get(ctx, sealedPrefix, options...)
	must(t, err)
	in, err := l.client.Txn(ctx).Then(clientv3.OpPut(sealedPrefix+"4", "e"), clientv3.OpGet(sealedPrefix, options...)).Commit()
	must(t, err)
	for _, c := range []struct {
		got   *pb.RangeResponse
		want  string
		count int64
	}{{(*pb.RangeResponse)(alone), "dcb", 4}, {in.Responses[1].GetResponseRange(), "edc", 5}} {
		got := ""
		for _, kv := range c.got.Kvs {
			got += string(kv.Value)
		}
		if got != c.want || !c.got.More || c.got.Count != c.count {
			t.Errorf("got %s, more %v, count %d; want %s of %d", got, c.got.More, c.got.Count, c.want, c.count)
		}
	}
}

// TestAssistedCallsCarryTheCallersMetadata shows it by the errors that etcd gives to
// some of them.
func TestAssistedCallsCarryTheCallersMetadata(t *testing.T) {
	l := newLab(t, setup{})
	ctx := bounded(t)
	for _, c := range [][]string{{"user", "root"}, {"user", "reader"}, {"role", "root"}, {"role", "reader"}} {
		var err error
		if c[0] == "user" {
			_, err = l.direct.UserAdd(ctx, c[1], "pw")
		} else {
			_, err = l.direct.RoleAdd(ctx, c[1])
		}
		must(t, err)
	}
	_, err := l.direct.RoleGrantPermission(ctx, "reader", sealedPrefix+"r/", sealedPrefix+"r0", clientv3.PermissionType(clientv3.PermRead))
	must(t, err)
	for _, name := range []string{"root", "reader"} {
		_, err = l.direct.UserGrantRole(ctx, name, name)
		must(t, err)
	}
	_, err = l.client.Put(ctx, sealedPrefix+"r/a", "v")
	must(t, err)
	_, err = l.direct.AuthEnable(ctx)
	must(t, err)
	user, err := clientv3.New(clientv3.Config{Endpoints: []string{l.address}, Username: "reader", Password: "pw"})
	must(t, err)
	defer user.Close()
	if r, err := user.Txn(ctx).If(clientv3.Compare(clientv3.Value(sealedPrefix+"r/a"), "=", "v")).Commit(); err != nil || !r.Succeeded {
		t.Errorf("comparing what may be read: %v, %v", r, err)
	}
	for name, txn := range map[string]clientv3.Txn{
		"comparing what may not be read": user.Txn(ctx).If(clientv3.Compare(clientv3.Value(sealedPrefix+"s"), "=", "v")),
		"writing where nothing may be":   user.Txn(ctx).If(clientv3.Compare(clientv3.Value(sealedPrefix+"r/a"), "=", "x")).Then(clientv3.OpDelete(sealedPrefix + "r/a")),
	} {
		if _, err := txn.Commit(); err == nil || err.Error() != "etcdserver: permission denied" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := user.Get(ctx, sealedPrefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)); err == nil || err.Error() != "etcdserver: permission denied" {
		t.Errorf("sorting what may not be read: %v", err)
	}
	if _, err := l.client.Txn(ctx).If(clientv3.Compare(clientv3.Value(sealedPrefix+"r/a"), "=", "v")).Commit(); err == nil || err.Error() != "etcdserver: user name is empty" {
		t.Errorf("without a token: %v", err)
	}
}

// TestDeadlineOfAnAssistedCall is the caller's.
func TestDeadlineOfAnAssistedCall(t *testing.T) {
	l := newLab(t, setup{})
	ctx, cancel := context.WithTimeout(bounded(t), 1)
	defer cancel()
	_, err := l.client.Txn(ctx).If(clientv3.Compare(clientv3.Value(sealedPrefix+"a"), "=", "v")).Commit()
	if err == nil {
		t.Error("a call without time was answered")
	}
}
