package kube

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// TestEncodeSecret compares with the message written out by hand, from the field numbers of generated.proto.
func TestEncodeSecret(t *testing.T) {
	want := "k8s\x00" + "\x0a\x0c" + "\x0a\x02v1" + "\x12\x06Secret" + // TypeMeta
		"\x12\x1f" + // raw
		"\x0a\x07" + "\x0a\x01n" + "\x1a\x02ns" + // ObjectMeta
		"\x12\x0c" + "\x0a\x05value" + "\x12\x03abc" + // data
		"\x1a\x06Opaque"
	if diff := cmp.Diff(want, string(encodeSecret("ns", "n", []byte("abc")))); diff != "" {
		t.Errorf("secret (-want +got):\n%s", diff)
	}
	if got := encodeNamespace("n"); !strings.HasSuffix(string(got), "\x12\x05\x0a\x03\x0a\x01n") {
		t.Errorf("namespace is %q", got)
	}
}

func TestDecodeSecretValue(t *testing.T) {
	body := encodeSecret("ns", "n", []byte("abc"))
	if got, err := decodeSecretValue(body); err != nil || string(got) != "abc" {
		t.Errorf("value is %q, %v, want abc", got, err)
	}
	for name, bad := range map[string][]byte{
		"JSON": []byte(`{"kind":"Secret"}`), "a namespace": encodeNamespace("n"), "nothing": nil, "a part": body[:len(body)-1],
	} {
		if _, err := decodeSecretValue(bad); err == nil {
			t.Errorf("%s was taken for a secret", name)
		}
	}
}

// exampleList is a SecretList of some items, with a field that has no length among those of its metadata.
func exampleList(items int, more string) []byte {
	meta := appendBytes(nil, listMetaVersion, []byte("17"))
	meta = appendBytes(meta, listMetaContinue, []byte(more))
	meta = protowire.AppendVarint(protowire.AppendTag(meta, 4, protowire.VarintType), 300)
	raw := appendBytes(nil, listMeta, meta)
	for range items {
		raw = appendBytes(raw, listItems, []byte("item"))
	}
	return encodeUnknown("SecretList", raw)
}

func TestDecodeList(t *testing.T) {
	for _, c := range []struct {
		body []byte
		want list
	}{
		{exampleList(3, ""), list{items: 3, version: "17", contents: 12}},
		{exampleList(0, "token"), list{version: "17", more: true}},
	} {
		got, err := decodeList(c.body)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(list{})); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
	}
	if _, err := decodeList(encodeSecret("ns", "n", nil)); err == nil {
		t.Error("a secret was taken for a list")
	}
}

func FuzzDecodeList(f *testing.F) {
	f.Add(exampleList(2, "token"))
	f.Add([]byte(protobufMagic))
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := decodeList(body)
		if err == nil && (l.items*2 > len(body) || l.contents > len(body) || !bytes.HasPrefix(body, []byte(protobufMagic))) {
			t.Errorf("%d bytes hold %d items of %d bytes in all", len(body), l.items, l.contents)
		}
	})
}
