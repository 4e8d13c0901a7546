//go:build !race

package envelope_test

import (
	"bytes"
	"testing"
)

// Under the race detector sync.Pool drops entries on purpose, hence the build
// constraint.

func TestNoAllocations(t *testing.T) {
	key, etcdKey := testKey(t, 1), []byte("/registry/secrets/namespace/name")
	plaintext := pattern(1024)
	buf := key.Seal(nil, etcdKey, plaintext)
	sealed, opened := bytes.Clone(buf), make([]byte, 0, len(plaintext))
	for name, f := range map[string]func(){
		"Seal": func() { buf = key.Seal(buf[:0], etcdKey, plaintext) },
		"Open": func() {
			buf = append(buf[:0], sealed...)
			if _, err := key.Open(buf, etcdKey); err != nil {
				t.Fatal(err)
			}
		},
		"OpenTo": func() {
			if _, err := key.OpenTo(opened, sealed, etcdKey); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s allocates %v times, want 0", name, n)
		}
	}
}
