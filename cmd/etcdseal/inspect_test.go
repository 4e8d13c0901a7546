package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// recordVector is the record of docs/FORMAT.md.
func recordVector(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("../../crypto/dek/testdata/record.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func exportVector(t testing.TB) []byte {
	t.Helper()
	r, err := dek.ParseRecord(recordVector(t))
	if err != nil {
		t.Fatal(err)
	}
	e := &dek.Export{Keyring: "my-cluster", Exported: time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC), Records: []dek.Stored{{ID: r.ID, Data: recordVector(t)}}}
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestInspectValue(t *testing.T) {
	record, export := string(recordVector(t)), string(exportVector(t))
	tombstone := `{"version":1,"id":"aa26311dbb1ba984451b2209d294f819","keyring":"my-cluster","buried":"2026-11-28T00:00:00Z"}`
	sealed := "\x00es\x01" + strings.Repeat("x", 44)
	tests := []struct{ value, kind, wrong string }{
		{"", "empty", ""},
		{"x", "plaintext", ""},
		{"{", "plaintext", ""},
		{`{"version":1}`, "plaintext", ""},
		{"k8s\x00\n\x0c", "plaintext", ""},
		{"k8s:enc:", "kubernetes encryption", ""},
		{"k8s:enc:aescbc:v1:key1:xyz", "kubernetes encryption", ""},
		{"\x00e", "plaintext", ""},
		{"\x00es", "envelope", "truncated"},
		{sealed, "envelope", ""},
		{sealed[:47], "envelope", "truncated"},
		{"\x00es\x02" + sealed, "envelope", "version 2"},
		{record, "record", ""},
		{record + "\n", "record", "exact form"},
		{record[:len(record)-1], "record", "not a JSON object"},
		{strings.Replace(record, `"version":1`, `"version":2`, 1), "record", "format version 2 is unknown"},
		{strings.Replace(record, "my-cluster", "my\\u002dcluster", 1), "record", "exact form"},
		{tombstone, "tombstone", ""},
		{tombstone + " ", "tombstone", "exact form"},
		{strings.Replace(tombstone, "aa26", "zz26", 1), "tombstone", "DEK id"},
		{strings.Replace(tombstone, `"version":1`, `"version":2`, 1), "tombstone", "format version 2 is unknown"},
		{export, "keyring export", ""},
		{export[:len(export)-3], "keyring export", "not a JSON object"},
		{strings.Replace(export, `"record": "eyJ2`, `"record": "AAAA`, 1), "keyring export", "a record in it cannot be read"},
	}
	for _, tt := range tests {
		got := inspectValue([]byte(tt.value))
		if got.Kind != tt.kind || got.Bytes != len(tt.value) || (got.Error == "") != (tt.wrong == "") || !strings.Contains(got.Error, tt.wrong) {
			t.Errorf("%.80q: %s, %q; want %s, %q", tt.value, got.Kind, got.Error, tt.kind, tt.wrong)
		}
	}
}

// FuzzInspectValue looks at anything: something is said of it, in both forms, and no
// plaintext is repeated.
func FuzzInspectValue(f *testing.F) {
	f.Add(recordVector(f))
	f.Add(exportVector(f))
	f.Add([]byte(`{"version":1,"id":"aa26311dbb1ba984451b2209d294f819","keyring":"my-cluster","buried":"2026-11-28T00:00:00Z"}`))
	f.Add([]byte("k8s:enc:kms:v2:x:abc"))
	f.Add([]byte("\x00es\x01"))
	f.Fuzz(func(t *testing.T, value []byte) {
		in := inspectValue(value)
		for _, form := range []string{"text", "json"} {
			var out, errs bytes.Buffer
			status := printInspected(streams{out: &out, err: &errs}, in, form)
			if want := map[bool]int{true: exitDone, false: exitFound}[in.Error == ""]; status != want || out.Len() == 0 {
				t.Errorf("%s: status %d, want %d: %s", form, status, want, errs.String())
			}
			if form == "json" && !json.Valid(out.Bytes()) {
				t.Errorf("no JSON: %s", out.String())
			}
			if in.Kind == "plaintext" {
				var other bytes.Buffer
				printInspected(streams{out: &other, err: &errs}, inspectValue(bytes.Repeat([]byte("x"), len(value))), form)
				if !bytes.Equal(other.Bytes(), out.Bytes()) {
					t.Errorf("%s depends on the plaintext: %s", form, out.String())
				}
			}
		}
		if _, err := envelope.Parse(value); in.Kind == "envelope" && (err == nil) != (in.Error == "") {
			t.Errorf("%v, and %q is said", err, in.Error)
		}
	})
}
