package wire

import (
	"bytes"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// TestFill builds messages around values that are made where they stand, and
// compares with values that were made before.
func TestFill(t *testing.T) {
	for _, sizes := range [][]int{{5}, {0, 1, 300, 17, 40000}, {60, 60, 60, 70, 80, 90, 100, 110}, {127, 128, 129, 16383, 16384}} {
		msg := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{Revision: 7}, Count: int64(len(sizes))}
		for i, n := range sizes {
			msg.Kvs = append(msg.Kvs, &mvccpb.KeyValue{Key: key(i), Value: bytes.Repeat([]byte{byte(i + 1)}, n+48), ModRevision: 9})
		}
		b, err := proto.Marshal(msg)
		if err != nil {
			t.Fatal(err)
		}
		var want, grown Scan
		if want.Parse(RangeResponse, bytes.Clone(b)) != nil || grown.Parse(RangeResponse, bytes.Clone(b)) != nil {
			t.Fatal("not parsed")
		}
		for i := range want.Values {
			v, g := &want.Values[i], &grown.Values[i]
			v.New, v.Replace = v.Old[20:20+len(v.Old)-48], i != 1 // the second stays
			g.NewLen, g.Replace = len(g.Old)+48, true
		}
		got := grown.AppendFunc([]byte("before"), func(dst []byte, i int) []byte {
			return append(append(dst, grown.Values[i].Old...), make([]byte, 48)...)
		})
		var back etcdserverpb.RangeResponse
		if err := proto.Unmarshal(got[len("before"):], &back); err != nil {
			t.Fatal(err)
		}
		for i, kv := range back.Kvs {
			if !bytes.Equal(kv.Value, append(bytes.Clone(msg.Kvs[i].Value), make([]byte, 48)...)) {
				t.Errorf("AppendFunc: value %d is another", i)
			}
		}
		var in Scan
		if in.Parse(RangeResponse, bytes.Clone(b)) != nil {
			t.Fatal("not parsed")
		}
		for i := range in.Values {
			v := &in.Values[i]
			v.NewLen, v.Replace = len(v.Old)-48, i != 1
		}
		shrunk := in.InPlaceFunc(nil, func(i int) []byte {
			v := &in.Values[i]
			if want := key(i); !bytes.Equal(v.Key, want) {
				t.Errorf("sizes %v: the key of value %d is %q when it is opened", sizes, i, v.Key)
			}
			clear(v.Old[:20]) // as opening an envelope leaves it
			return v.Old[20 : len(v.Old)-28]
		})
		if !bytes.Equal(shrunk, want.InPlace()) {
			t.Errorf("sizes %v: InPlaceFunc differs from InPlace", sizes)
		}
	}
}

func key(i int) []byte { return fmt.Appendf(nil, "/registry/secrets/default/%d", i) }
