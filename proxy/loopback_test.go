package proxy_test

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// TestLoopback works on plaintext past the listener, on the endpoint that is named.
func TestLoopback(t *testing.T) {
	l := newLab(t, setup{})
	for _, endpoint := range []string{"", l.etcdURL} {
		conn, err := l.server.Loopback(endpoint)
		must(t, err)
		kv := pb.NewKVClient(conn)
		key := []byte(sealedPrefix + "a")
		_, err = kv.Put(t.Context(), &pb.PutRequest{Key: key, Value: []byte("plain")})
		must(t, err)
		got, err := kv.Range(t.Context(), &pb.RangeRequest{Key: key})
		must(t, err)
		if v := string(got.GetKvs()[0].GetValue()); v != "plain" {
			t.Errorf("read %q", v)
		}
		stored, err := l.direct.Get(t.Context(), string(key))
		must(t, err)
		if !envelope.Is(stored.Kvs[0].Value) {
			t.Error("etcd holds plaintext")
		}
		must(t, conn.Close())
	}
	conn, err := l.server.Loopback("http://127.0.0.1:1")
	must(t, err)
	defer conn.Close()
	if _, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}); err == nil {
		t.Error("an endpoint that is not configured answers")
	}
}
