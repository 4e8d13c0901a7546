package migrate_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/migrate"
)

// benchValues is how many values of 1 KiB the benchmark seals.
const benchValues = 30_000

// rewrite puts all values in transactions of 100, one after the other, and returns how
// long that took.
func (l *lab) rewrite(value string) time.Duration {
	l.Helper()
	start := time.Now()
	for i := 0; i < benchValues; i += 100 {
		var ops []clientv3.Op
		for n := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%sns/%07d", prefix, i+n), value))
		}
		if _, err := l.client.Txn(l.Context()).Then(ops...).Commit(); err != nil {
			l.Fatal(err)
		}
	}
	return time.Since(start)
}

// TestRate prints how fast values are sealed, as a share of the rate at which a bare
// client rewrites them in transactions of the same size. It is run by
//
//	ETCDSEAL_RATE=1 go test -v -run TestRate ./migrate
//
// and by nothing else, for what it prints is a figure and no verdict.
func TestRate(t *testing.T) {
	if os.Getenv("ETCDSEAL_RATE") == "" {
		t.Skip("ETCDSEAL_RATE is not set")
	}
	l := newLab(t)
	value := strings.Repeat("0123456789abcdef", 64)
	l.rewrite(value)
	bare := l.rewrite(value)
	result := l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt})
	if result.Changed != benchValues {
		t.Fatalf("%d values were sealed, want %d", result.Changed, benchValues)
	}
	again := l.rewrite(value)
	rate := func(d time.Duration) float64 { return benchValues / d.Seconds() }
	t.Logf("bare client: %.0f and %.0f values a second, before and after; encrypt: %.0f in %d passes; ratio %.2f",
		rate(bare), rate(again), rate(result.Elapsed), result.Passes, 2*rate(result.Elapsed)/(rate(bare)+rate(again)))
}
