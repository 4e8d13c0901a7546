package process

import "testing"

// TestFreeAddress has nobody listen on what it gets, as a program that is restarted: no
// address comes twice.
func TestFreeAddress(t *testing.T) {
	seen := map[string]bool{}
	for range 500 { // of 10000: by chance alone some would
		address := FreeAddress(t)
		if seen[address] {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
	}
	var given string
	t.Run("a test that ends", func(t *testing.T) { given = FreeAddress(t) })
	if seen[given] {
		t.Errorf("%s was given twice", given)
	}
}
