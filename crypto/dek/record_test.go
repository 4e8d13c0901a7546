package dek_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/local"
)

// vector returns a frozen record.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func vectorID(t testing.TB) envelope.ID {
	t.Helper()
	id, err := envelope.ParseID("aa26311dbb1ba984451b2209d294f819")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestVector opens the worked examples of docs/FORMAT.md, from the local KEK's file to
// the plaintext.
func TestVector(t *testing.T) {
	const keyFile = "etcdseal local kek v1\n808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f\n53f416d09b311186\n"
	const sealed = "00657301aa26311dbb1ba984451b2209d294f819a0a1a2a3a4a5a6a7a8a9aaab3ea6bec55d6eba17d2890736976104af4113441804b4c1aeb94e71"
	path := filepath.Join(t.TempDir(), "kek.key")
	if err := os.WriteFile(path, []byte(keyFile), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := local.New(local.Config{KeyFile: path})
	if err != nil {
		t.Fatal(err)
	}
	store := dektest.NewMemory()
	store.Put(vectorID(t), vector(t, "record.json"))
	m, err := dek.New(dek.Config{Store: store, Keyring: "my-cluster", KEKs: map[string]kek.KEK{"dev": k}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	key, err := m.OpenKey(t.Context(), vectorID(t))
	if err != nil {
		t.Fatalf("OpenKey: %v", err)
	}
	value, err := hex.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	got, err := key.Open(value, []byte("/registry/secrets/default/db"))
	if err != nil || string(got) != "hello, etcd" {
		t.Errorf("Open: got %q, %v", got, err)
	}
}

// TestFormatShowsVector compares the record that docs/FORMAT.md shows with the frozen one.
func TestFormatShowsVector(t *testing.T) {
	format, err := os.ReadFile("../../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(format), "\n    "+string(vector(t, "record.json"))+"\n") {
		t.Error("docs/FORMAT.md does not show testdata/record.json")
	}
}

func TestParseRecord(t *testing.T) {
	want := &dek.Record{
		ID: vectorID(t), Keyring: "my-cluster",
		Created:   time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
		SealUntil: time.Date(2027, 2, 21, 10, 0, 0, 0, time.UTC),
		Wrappings: []dek.Wrapping{
			{KEK: `a <"quoted"> & nämed KEK`, Version: "https://v.vault.azure.net/keys/etcd/0123", Algorithm: "RSA-OAEP-256", Ciphertext: []byte{0, 1, 2}},
			{KEK: "plugin", Version: "key id\n2", Algorithm: "kms v2", Ciphertext: []byte{0xff},
				Annotations: map[string][]byte{"empty.example.org": {}, "kms.example.org": {4, 5, 6}}},
		},
	}
	data := vector(t, "record-wrappings.json")
	got, err := dek.ParseRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseRecord (-want +got):\n%s", diff)
	}
	again, err := want.Marshal()
	if err != nil || string(again) != string(data) {
		t.Errorf("Marshal: got %s, %v", again, err)
	}
}

// TestEscapes pins the escapes of strings: the format must not follow encoding/json if
// that changes.
func TestEscapes(t *testing.T) {
	r, err := dek.ParseRecord(vector(t, "record-escapes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for c := range rune(32) {
		want.WriteRune(c)
	}
	want.WriteString("\"\\/'<>&\x7f\u0080\u2028\u2029\ufffd\U0001f511")
	if got := r.Wrappings[0].Version; got != want.String() {
		t.Errorf("got %q, want %q", got, want.String())
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := string(vector(t, "record.json"))
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the record has no %s", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, data := range map[string]string{
		"empty":                     "",
		"null":                      "null",
		"array":                     "[]",
		"truncated":                 good[:len(good)-1],
		"something after it":        good + "\n",
		"something before it":       " " + good,
		"white space":               replace(`,"id"`, `, "id"`),
		"unknown member":            replace(`{"version":1,`, `{"version":1,"more":1,`),
		"repeated member":           replace(`"keyring":`, `"keyring":"x","keyring":`),
		"another case":              replace(`"keyring":`, `"Keyring":`),
		"another order":             replace(`"version":1,"id":"aa26311dbb1ba984451b2209d294f819"`, `"id":"aa26311dbb1ba984451b2209d294f819","version":1`),
		"no version":                replace(`"version":1,"id"`, `"id"`),
		"version as text":           replace(`"version":1,`, `"version":"1",`),
		"upper-case id":             replace("aa26", "AA26"),
		"short id":                  replace("aa26", "aa2"),
		"no name":                   replace("my-cluster", ""),
		"long name":                 replace("my-cluster", strings.Repeat("x", dek.MaxNameSize+1)),
		"escape without need":       replace("my-cluster", `my\u002dcluster`),
		"escape for HTML":           replace("my-cluster", `my\u003ccluster`),
		"not UTF-8":                 replace("my-cluster", "my\xffcluster"),
		"fraction of a second":      replace("2026-11-23T10:00:00Z", "2026-11-23T10:00:00.5Z"),
		"another zone":              replace("2026-11-23T10:00:00Z", "2026-11-23T11:00:00+01:00"),
		"zero offset":               replace("2026-11-23T10:00:00Z", "2026-11-23T10:00:00+00:00"),
		"sealUntil before created":  replace("2027-02-21", "2026-02-21"),
		"sealUntil is created":      replace("2027-02-21", "2026-11-23"),
		"no wrappings":              good[:strings.Index(good, `"wrappings"`)] + `"wrappings":[]}`,
		"null wrappings":            good[:strings.Index(good, `"wrappings"`)] + `"wrappings":null}`,
		"null wrapping":             good[:strings.Index(good, `"wrappings"`)] + `"wrappings":[null]}`,
		"no KEK":                    replace(`"kek":"dev"`, `"kek":""`),
		"no KEK's version":          replace(`"version":"53f416d09b311186",`, ``),
		"no ciphertext":             replace(`"ciphertext":"`, `"x":"`),
		"base64 for URLs":           replace(`+`, `-`),
		"base64 with a line break":  replace(`"ciphertext":"s`, `"ciphertext":"\ns`),
		"empty annotations":         replace(`"}]}`, `","annotations":{}}]}`),
		"null annotation":           replace(`"}]}`, `","annotations":{"a":null}}]}`),
		"annotation without a name": replace(`"}]}`, `","annotations":{"":"AAAA"}}]}`),
		"annotations out of order":  replace(`"}]}`, `","annotations":{"b":"AAAA","a":"AAAA"}}]}`),
		"too large":                 replace("my-cluster", strings.Repeat("x", dek.MaxRecordSize)),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := dek.ParseRecord([]byte(data))
			if err == nil {
				t.Errorf("got %v, want an error", r)
			}
		})
	}
}

func TestParseRecordVersion(t *testing.T) {
	for version, data := range map[int]string{
		0: `{"version":0}`,
		2: `{"version":2,"id":["another","format"]}`,
	} {
		_, err := dek.ParseRecord([]byte(data))
		if e, ok := errors.AsType[*dek.RecordVersionError](err); !ok || e.Version != version {
			t.Errorf("%s: got %v, want a RecordVersionError", data, err)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	many := func(r *dek.Record, n int) {
		for len(r.Wrappings) < n {
			r.Wrappings = append(r.Wrappings, r.Wrappings[0])
		}
	}
	for name, spoil := range map[string]func(r *dek.Record){
		"too many wrappings":   func(r *dek.Record) { many(r, dek.MaxWrappings+1) },
		"large ciphertext":     func(r *dek.Record) { r.Wrappings[0].Ciphertext = make([]byte, dek.MaxCiphertextSize+1) },
		"long version":         func(r *dek.Record) { r.Wrappings[0].Version = strings.Repeat("x", dek.MaxVersionSize+1) },
		"local time":           func(r *dek.Record) { r.Created = r.Created.In(time.FixedZone("", 3600)) },
		"monotonic nanosecond": func(r *dek.Record) { r.Created = r.Created.Add(1) },
		"long algorithm":       func(r *dek.Record) { r.Wrappings[0].Algorithm = strings.Repeat("x", dek.MaxNameSize+1) },
		"large in all": func(r *dek.Record) {
			r.Wrappings[0].Ciphertext = make([]byte, dek.MaxCiphertextSize)
			many(r, 4)
		},
		"many annotations": func(r *dek.Record) {
			r.Wrappings[0].Annotations = map[string][]byte{}
			for i := range dek.MaxAnnotations + 1 {
				r.Wrappings[0].Annotations[fmt.Sprint(i)] = []byte{}
			}
		},
	} {
		r, err := dek.ParseRecord(vector(t, "record.json"))
		if err != nil {
			t.Fatal(err)
		}
		spoil(r)
		if data, err := r.Marshal(); err == nil {
			t.Errorf("%s: got %d bytes, want an error", name, len(data))
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(vector(f, "record.json"))
	f.Add(vector(f, "record-wrappings.json"))
	f.Add(vector(f, "record-escapes.json"))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := dek.ParseRecord(data)
		if err != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil || string(again) != string(data) {
			t.Errorf("parsed, and encoded again as %q, %v", again, err)
		}
	})
}

// TestNothingSecretIsPrinted prints what holds wrapped bytes in every way that errors and
// logs do.
func TestNothingSecretIsPrinted(t *testing.T) {
	r, err := dek.ParseRecord(vector(t, "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	wrapped := r.Wrappings[0].Ciphertext
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		for _, v := range []any{r, *r, r.Wrappings, r.Wrappings[0], &r.Wrappings[0]} {
			got := fmt.Sprintf(verb, v)
			for _, form := range []string{string(wrapped), fmt.Sprintf("%x", wrapped[:8]), fmt.Sprint(wrapped[:8])[1:20]} {
				if strings.Contains(got, form) {
					t.Errorf("%s of a %T has the wrapped bytes", verb, v)
				}
			}
		}
	}
}

func TestTombstoneEncoding(t *testing.T) {
	stone := dek.Tombstone{ID: vectorID(t), Keyring: "my-cluster", Buried: time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)}
	want := `{"version":1,"id":"aa26311dbb1ba984451b2209d294f819","keyring":"my-cluster","buried":"2027-06-01T00:00:00Z"}`
	if got, err := stone.Marshal(); err != nil || string(got) != want {
		t.Errorf("Marshal: got %s, %v, want %s", got, err, want)
	}
	stone.Keyring = ""
	if _, err := stone.Marshal(); err == nil {
		t.Error("Marshal without a keyring: no error")
	}
}

// TestRewrappedRecord keeps the form of the members that only rewrapping writes.
func TestRewrappedRecord(t *testing.T) {
	good := string(vector(t, "record.json"))
	with := func(wrapping, rest string) string {
		return strings.TrimSuffix(good, "}]}") + wrapping + "}]" + rest + "}"
	}
	const wrapped, dropped, claim = `,"wrapped":"2026-12-01T10:00:00Z"`,
		`,"dropped":[{"kek":"dev","version":"1","at":"2026-12-01T10:00:00Z"}]`, `,"claim":{"by":"x","until":"2026-12-01T10:00:00Z"}`
	r, err := dek.ParseRecord([]byte(with(wrapped, dropped+claim)))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	if !r.Wrappings[0].Wrapped.Equal(at) || r.Dropped[0] != (dek.Dropped{KEK: "dev", Version: "1", At: at}) || *r.Claim != (dek.Claim{By: "x", Until: at}) {
		t.Errorf("got %v, %v, %v", r.Wrappings[0].Wrapped, r.Dropped, r.Claim)
	}
	for name, data := range map[string]string{
		"claim before dropped": with("", claim+dropped),
		"no dropped":           with("", `,"dropped":[]`),
		"null claim":           with("", `,"claim":null`),
		"empty claim":          with("", `,"claim":{}`),
		"dropped without time": with("", `,"dropped":[{"kek":"dev","version":"1"}]`),
		"dropped without name": with("", `,"dropped":[{"kek":"","version":"1","at":"2026-12-01T10:00:00Z"}]`),
		"zero time":            with(`,"wrapped":"0001-01-01T00:00:00Z"`, ""),
		"another zone":         with(`,"wrapped":"2026-12-01T10:00:00+01:00"`, ""),
		"too many dropped": with("", `,"dropped":[`+strings.TrimSuffix(strings.Repeat(
			`{"kek":"dev","version":"1","at":"2026-12-01T10:00:00Z"},`, dek.MaxDropped+1), ",")+`]`),
	} {
		if _, err := dek.ParseRecord([]byte(data)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
