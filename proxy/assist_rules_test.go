package proxy_test

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/proxy"
)

// TestRulesChangeDuringAnAssistedCall drops the rule while a transaction that compares by
// value has read the value and not opened it yet: all of its calls follow the rules that
// it began with, and the next one follows the new ones.
func TestRulesChangeDuringAnAssistedCall(t *testing.T) {
	store := startEtcd(t)
	writer := kektest.NewFake("k", "1")
	key, out := sealedPrefix+"a", sealedPrefix+"b"
	first := newLab(t, setup{etcdURL: store, kek: writer})
	_, err := first.client.Put(bounded(t), key, "one")
	must(t, err)

	reader := kektest.NewFake("k", "1")
	l := newLab(t, setup{etcdURL: store, kek: reader})
	ctx := bounded(t)
	compare := func() (*clientv3.TxnResponse, error) {
		return l.client.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", "one")).
			Then(clientv3.OpPut(out, "two"), clientv3.OpGet(key)).Commit()
	}
	release := reader.Block(kek.OpUnwrap)
	defer release()
	type result struct {
		*clientv3.TxnResponse
		err error
	}
	done := make(chan result, 1)
	go func() { r, err := compare(); done <- result{r, err} }()
	must(t, reader.AwaitBlocked(ctx, kek.OpUnwrap, 1))
	l.server.SetRules(proxy.NewRules(nil))
	release()
	got := <-done
	must(t, got.err)
	if !got.Succeeded {
		t.Fatal("the value was compared as it is stored")
	}
	if v := string(got.Responses[1].GetResponseRange().Kvs[0].Value); v != "one" {
		t.Errorf("read %q, want the plaintext", v)
	}
	if raw := l.stored(t, out); !envelope.Is(raw) {
		t.Errorf("etcd holds %q, want it sealed", raw)
	}
	if r, err := compare(); err != nil || r.Succeeded {
		t.Errorf("after it: got %v, %v, want the envelope compared", r, err)
	}
	l.server.SetRules(l.rules(t, setup{}))
	if r, err := compare(); err != nil || !r.Succeeded {
		t.Errorf("with the rule back: got %v, %v, want the plaintext compared", r, err)
	}
}
