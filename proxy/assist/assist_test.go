package assist_test

import (
	"flag"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/proxy/assist"
	"github.com/etcdseal/etcdseal/proxy/difftest"
)

var (
	seed       = flag.Uint64("assist.seed", 1, "seed of the random sequence, to repeat a run")
	operations = flag.Int("assist.operations", 3000, "length of the random sequence")
)

// TestEngineEqualsEtcd runs everything through an engine that takes all keys for
// sealed and compares with etcd.
func TestEngineEqualsEtcd(t *testing.T) {
	behind := startEtcd(t, nil)
	engine := &assist.Engine{KV: pb.NewKVClient(behind), Sealed: everything}
	must(t, difftest.Run(t.Context(), difftest.Config{
		Reference: startEtcd(t, nil), Subject: assisted{behind, engine}, Sealed: "/registry/secrets/", SealedValueOrder: true,
		Seed: *seed, Operations: *operations, Logf: t.Logf,
	}))
}
