package kmsv2

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	kmsapi "k8s.io/kms/apis/v2"
)

// An encoded request is what gRPC's codec makes of it, and is wiped when gRPC lets go of
// it. The caller's DEK is not.
func TestWiper(t *testing.T) {
	plain := encoding.GetCodecV2(proto.Name)
	for _, size := range []int{1, 32, 5000} {
		request := &kmsapi.EncryptRequest{Plaintext: bytes.Repeat([]byte{0xd5}, size), Uid: newUID()}
		want, err := plain.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wiper{plain}.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Materialize(), want.Materialize()) {
			t.Errorf("%d bytes are encoded in another way", size)
		}
		encoded := got[0].ReadOnlyData()
		got.Free()
		if bytes.Count(encoded, []byte{0}) != len(encoded) {
			t.Errorf("%d bytes are not wiped", size)
		}
		if !bytes.Equal(request.Plaintext, bytes.Repeat([]byte{0xd5}, size)) {
			t.Errorf("%d bytes: the caller's are wiped", size)
		}
	}
	if name := (wiper{plain}).Name(); name != "" {
		t.Errorf("the content type would end with +%s, which kube-apiserver's does not", name)
	}
	if _, err := (wiper{plain}).Marshal("text"); err == nil {
		t.Error("a text is encoded")
	}
}
