//go:build !race

package proxy_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
)

// Under the race detector sync.Pool drops entries on purpose, hence the build
// constraint.

// TestAllocationsPerCall counts what the proxy allocates for calls over real sockets,
// from the client's frames to the answer's. The client and etcd, which are in the same
// process, are told apart by the stacks of a profile that has every allocation.
func TestAllocationsPerCall(t *testing.T) {
	rate := runtime.MemProfileRate
	runtime.MemProfileRate = 1
	t.Cleanup(func() { runtime.MemProfileRate = rate })
	l := newLab(t, setup{})
	value := strings.Repeat("v", 1<<10)
	for _, test := range []struct {
		name string
		call func(ctx context.Context, key string) error
		most float64
	}{
		{"put", func(ctx context.Context, key string) error { _, err := l.client.Put(ctx, key, value); return err }, 4},
		{"get", func(ctx context.Context, key string) error { _, err := l.client.Get(ctx, key); return err }, 4},
	} {
		for prefix, kind := range map[string]string{sealedPrefix: "under a rule", "/registry/configmaps/": "under none"} {
			const calls = 300
			ctx := bounded(t)
			run := func(n int) {
				for range n {
					must(t, test.call(ctx, prefix+"a"))
				}
			}
			run(50)
			before := proxyAllocations()
			run(calls)
			each := float64(proxyAllocations()-before) / calls
			t.Logf("%s %s: %.2f allocations", test.name, kind, each)
			if each > test.most {
				t.Errorf("a %s %s takes %.2f allocations, want at most %v", test.name, kind, each, test.most)
			}
			if each < 1 { // each stream is one
				t.Errorf("%.2f allocations were seen for a %s: the counting misses some", each, test.name)
			}
		}
	}
}

// proxyAllocations is how many allocations the proxy and what it calls have made. The
// profile is complete up to the last collection but one.
func proxyAllocations() (n int64) {
	runtime.GC()
	runtime.GC()
	var records []runtime.MemProfileRecord
	for have, ok := 0, false; !ok; {
		records = make([]runtime.MemProfileRecord, have+100)
		have, ok = runtime.MemProfile(records, true)
		if ok {
			records = records[:have]
		}
	}
	for i := range records {
		if inProxy(records[i].Stack()) {
			n += records[i].AllocObjects
		}
	}
	return n
}

// inProxy reports whether a stack has a function of the proxy's, whichever goroutine
// it is on: readers, those that write in their place, those that wait for a key.
func inProxy(stack []uintptr) bool {
	for frames := runtime.CallersFrames(stack); ; {
		frame, more := frames.Next()
		of, ok := strings.CutPrefix(frame.Function, "github.com/etcdseal/etcdseal/proxy")
		if ok && (of[0] == '.' || of[0] == '/') { // not proxy_test
			return true
		}
		if !more {
			return false
		}
	}
}
