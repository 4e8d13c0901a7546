package local_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// All other tests of this package pass in FIPS mode too, in which the standard
// library refuses what FIPS 140-3 does not approve.
func TestFIPSOnly(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("this is FIPS mode already")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the tests under GODEBUG=fips140=only: %v\n%s", err, out)
	}
}

// The re-executed tests are in the mode that TestFIPSOnly asked for.
func TestFIPSMode(t *testing.T) {
	if want := strings.Contains(os.Getenv("GODEBUG"), "fips140=only"); fips140.Enforced() != want {
		t.Errorf("FIPS mode enforced: %v, want %v", fips140.Enforced(), want)
	}
}
