package envelope_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// testDEK returns a DEK of the test's own, the same for the same seed.
func testDEK(seed byte) []byte { return bytes.Repeat([]byte{seed, ^seed}, envelope.KeySize/2) }

// pattern returns size bytes that do not repeat soon.
func pattern(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i ^ i>>8*31)
	}
	return p
}

func newKey(t testing.TB, id envelope.ID, dek []byte) *envelope.Key {
	t.Helper()
	key, err := envelope.NewKey(id, dek)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// testKey returns a key as the keyring makes them.
func testKey(t testing.TB, seed byte) *envelope.Key {
	t.Helper()
	dek := testDEK(seed)
	return newKey(t, envelope.DeriveID(dek, nil, "test"), dek)
}

func TestIs(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  bool
	}{
		{"", false}, {"\x00", false}, {"\x00e", false}, {"\x00et", false}, {"\x01es", false},
		{"k8s\x00", false}, {"k8s:enc:kms:v2:", false}, {"es", false}, {" \x00es", false},
		{"\x00es", true}, {"\x00es\x01", true}, {"\x00es\xff and more", true},
	} {
		if got := envelope.Is([]byte(tt.value)); got != tt.want {
			t.Errorf("Is(%q) = %v, want %v", tt.value, got, tt.want)
		}
	}
}

func TestIDText(t *testing.T) {
	const text = "00112233445566778899aabbccddeeff"
	id, err := envelope.ParseID(text)
	if err != nil || id.String() != text {
		t.Fatalf("ParseID(%q) = %s, %v", text, id, err)
	}
	for _, bad := range []string{
		"", text[:30], text[:31], text + "0", text + "00", strings.ToUpper(text), text[:31] + "g",
		text[:31] + "F", " " + text[1:], "0x" + text[2:], text[:31] + "\n",
	} {
		if id, err := envelope.ParseID(bad); err == nil || id != (envelope.ID{}) {
			t.Errorf("ParseID(%q) = %s, %v, want an error and no id", bad, id, err)
		}
	}
}

// The identifier changes with everything that it commits to.
func TestDeriveID(t *testing.T) {
	dek, auth := testDEK(1), bytes.Repeat([]byte{5}, 32)
	base := envelope.DeriveID(dek, auth, "ring")
	for name, id := range map[string]envelope.ID{
		"another DEK":              envelope.DeriveID(testDEK(2), auth, "ring"),
		"no authentication key":    envelope.DeriveID(dek, nil, "ring"),
		"another key":              envelope.DeriveID(dek, bytes.Repeat([]byte{6}, 32), "ring"),
		"another keyring":          envelope.DeriveID(dek, auth, "ring2"),
		"keyring without name":     envelope.DeriveID(dek, auth, ""),
		"keyring with a zero byte": envelope.DeriveID(dek, auth, "\x00ring"),
	} {
		if id == base || id == (envelope.ID{}) {
			t.Errorf("%s: id %s, the one it must differ from is %s", name, id, base)
		}
	}
	if a, b := envelope.DeriveID(dek, nil, "r"), envelope.DeriveID(dek, []byte{}, "r"); a != b {
		t.Errorf("an empty authentication key gives %s, none gives %s", b, a)
	}
	for _, size := range []int{0, 1, 31, 33, 64} {
		if id := envelope.DeriveID(make([]byte, size), nil, "ring"); id != (envelope.ID{}) {
			t.Errorf("a DEK of %d bytes has the id %s, want none", size, id)
		}
		if key, err := envelope.NewKey(envelope.ID{}, make([]byte, size)); err == nil || key != nil {
			t.Errorf("NewKey accepts a DEK of %d bytes", size)
		}
	}
}

func TestParseTruncated(t *testing.T) {
	env := testKey(t, 1).Seal(nil, []byte("k"), pattern(40))
	for n := range envelope.Overhead {
		want := envelope.ErrTruncated
		if n < 3 {
			want = envelope.ErrNotEnvelope
		}
		if id, err := envelope.Parse(env[:n]); !errors.Is(err, want) || id != (envelope.ID{}) {
			t.Errorf("Parse of the first %d bytes = %s, %v, want %v", n, id, err, want)
		}
	}
	if _, err := envelope.Parse(env[:envelope.Overhead]); err != nil {
		t.Errorf("Parse of %d bytes: %v", envelope.Overhead, err)
	}
}

func TestParseVersion(t *testing.T) {
	for _, size := range []int{4, 20, envelope.Overhead, 500} {
		for v := range 256 {
			if v == envelope.Version {
				continue
			}
			value := make([]byte, size)
			copy(value, "\x00es")
			value[3] = byte(v)
			_, err := envelope.Parse(value)
			var version *envelope.VersionError
			if !errors.As(err, &version) || int(version.Version) != v {
				t.Errorf("version %d, %d bytes: %v, want a VersionError", v, size, err)
			}
		}
	}
	err := &envelope.VersionError{Version: 254}
	if !strings.Contains(err.Error(), "254") {
		t.Errorf("%q does not name the version", err)
	}
}

func TestWrongKeyErrorNamesBoth(t *testing.T) {
	a, b := testKey(t, 1), testKey(t, 2)
	env := a.Seal(nil, []byte("k"), []byte("v"))
	before := bytes.Clone(env)
	_, err := b.Open(env, []byte("k"))
	var wrong *envelope.WrongKeyError
	if !errors.As(err, &wrong) || wrong.Envelope != a.ID() || wrong.Key != b.ID() {
		t.Fatalf("Open = %v, want a WrongKeyError of %s and %s", err, a.ID(), b.ID())
	}
	for _, id := range []envelope.ID{a.ID(), b.ID()} {
		if !strings.Contains(err.Error(), id.String()) {
			t.Errorf("%q does not name %s", err, id)
		}
	}
	if !bytes.Equal(env, before) {
		t.Error("a wrong key changed the envelope")
	}
}
