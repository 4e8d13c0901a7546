package difftest

import (
	"flag"
	"testing"
)

const sealed = "/registry/secrets/"

var (
	seed       = flag.Uint64("difftest.seed", 1, "seed of the random sequence, to repeat a run")
	operations = flag.Int("difftest.operations", 2000, "length of the random sequence")
)

// TestPlainEtcdEqualsItself shows that the engine compares nothing that etcd leaves to chance.
func TestPlainEtcdEqualsItself(t *testing.T) {
	err := Run(t.Context(), Config{
		Reference: dial(t, startEtcd(t)), Subject: dial(t, startEtcd(t)), Sealed: sealed, SealedValueOrder: true,
		Seed: *seed, Operations: *operations, Logf: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
}
