package filestore

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse has whatever is read as a file encoded and read again.
func FuzzParse(f *testing.F) {
	good, err := os.ReadFile("testdata/keyring.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"revision":0,"records":{}}`))
	f.Add([]byte(`{"version":1,"revision":1,"records":{"dd000000000000000000000000000001":{"revision":1,"record": [1, {"a":\t"b"}] }}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		before, err := parse(data)
		if err != nil {
			return
		}
		after, err := parse(before.encode())
		if err != nil {
			t.Fatalf("parsing what was encoded: %v", err)
		}
		if diff := cmp.Diff(before, after, cmp.AllowUnexported(content{})); diff != "" {
			t.Errorf("encoded and parsed (-before +after):\n%s", diff)
		}
	})
}
