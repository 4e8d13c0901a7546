package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

func addVectors(f *testing.F) {
	vectors := readVectors(f)
	for _, v := range append(vectors.Open, vectors.Refuse...) {
		f.Add([]byte(v.Envelope), []byte(v.EtcdKey))
	}
}

// FuzzParse: Parse never panics, says the same as the format's table, and what it
// returns gives the header back byte for byte.
func FuzzParse(f *testing.F) {
	addVectors(f)
	f.Fuzz(func(t *testing.T, value, _ []byte) {
		id, err := envelope.Parse(value)
		if envelope.Is(value) == errors.Is(err, envelope.ErrNotEnvelope) {
			t.Errorf("Is = %v and Parse says %v", envelope.Is(value), err)
		}
		wellFormed := len(value) >= 48 && bytes.Equal(value[:4], []byte{0, 'e', 's', 1})
		if wellFormed != (err == nil) {
			t.Fatalf("Parse = %v, well-formed: %v", err, wellFormed)
		}
		if err != nil {
			return
		}
		if head := append([]byte{0, 'e', 's', 1}, id[:]...); !bytes.Equal(head, value[:20]) {
			t.Errorf("header %x parses to %s, which is %x", value[:20], id, head)
		}
		if back, err := envelope.ParseID(id.String()); err != nil || back != id {
			t.Errorf("ParseID(%s) = %s, %v", id, back, err)
		}
	})
}

// FuzzOpen: Open never panics, and agrees with the reference implementation on
// what is authentic, whatever DEK id the envelope names.
func FuzzOpen(f *testing.F) {
	addVectors(f)
	dek := readVectors(f).Open[0].DEK
	f.Fuzz(func(t *testing.T, value, etcdKey []byte) {
		id, err := envelope.Parse(value)
		key := newKey(t, id, dek)
		want, wantErr := referenceOpen(dek, value, etcdKey)
		before := bytes.Clone(value)
		to, toErr := key.OpenTo([]byte("dst"), value, etcdKey)
		got, gotErr := key.Open(bytes.Clone(value), etcdKey)
		if !bytes.Equal(to, append([]byte("dst"), got...)) || fmt.Sprint(toErr) != fmt.Sprint(gotErr) || !bytes.Equal(value, before) {
			t.Errorf("OpenTo = %x, %v, Open says %x, %v", to, toErr, got, gotErr)
		}
		if (gotErr == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
			t.Errorf("Open = %x, %v, the reference says %x, %v", got, gotErr, want, wantErr)
		}
		if err != nil && !errors.Is(gotErr, err) && gotErr.Error() != err.Error() {
			t.Errorf("Open says %v, Parse said %v", gotErr, err)
		}
	})
}

// FuzzSealOpen: what is sealed opens to the same bytes, here and by the reference,
// and under no other etcd key.
func FuzzSealOpen(f *testing.F) {
	f.Add([]byte("etcd key"), []byte("plaintext"), []byte("ring"), byte(1))
	f.Add([]byte{}, []byte{}, []byte{}, byte(0))
	f.Add([]byte("\x00es\x01"), []byte("\x00es\x01"), []byte("\x00"), byte(255))
	f.Fuzz(func(t *testing.T, etcdKey, plaintext, ring []byte, seed byte) {
		dek := testDEK(seed)
		id := envelope.DeriveID(dek, ring, string(ring))
		if want := referenceID(dek, ring, string(ring)); id != want {
			t.Fatalf("DeriveID = %s, the reference says %s", id, want)
		}
		key := newKey(t, id, dek)
		env := key.Seal(nil, etcdKey, plaintext)
		if got, err := referenceOpen(dek, env, etcdKey); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("the reference returns %x, %v, want %x", got, err, plaintext)
		}
		// Not append(etcdKey, 0): the fuzzer's arguments may share memory.
		longer := append(bytes.Clone(etcdKey), 0)
		if _, err := key.Open(bytes.Clone(env), longer); !errors.Is(err, envelope.ErrAuthentication) {
			t.Errorf("under another etcd key: %v, want %v", err, envelope.ErrAuthentication)
		}
		if got, err := key.Open(env, etcdKey); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("Open = %x, %v, want %x", got, err, plaintext)
		}
	})
}

// FuzzParseID: an identifier has one spelling only.
func FuzzParseID(f *testing.F) {
	f.Add("00112233445566778899aabbccddeeff")
	f.Add("00112233445566778899AABBCCDDEEFF")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := envelope.ParseID(text)
		if err == nil && id.String() != text {
			t.Errorf("ParseID(%q) is %s", text, id)
		}
	})
}
