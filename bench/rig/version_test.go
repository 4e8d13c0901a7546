package rig

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSealVersion(t *testing.T) {
	for _, c := range []struct {
		name, says, want string // no wanted version is an error
	}{
		{"of the Makefile", "etcdseal v1.2.3-4-gabcdef0 go1.26.0 linux/amd64", "v1.2.3-4-gabcdef0"},
		{"unknown", "etcdseal (devel) go1.26.0 linux/amd64", unknownVersion},
		{"another program", "etcd Version: 3.6.0", ""},
	} {
		path := filepath.Join(t.TempDir(), "etcdseal")
		if err := os.WriteFile(path, []byte("#!/bin/sh\ntest \"$1\" = version && echo '"+c.says+"'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := SealVersion(t.Context(), path, false); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}
