package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/binaries"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/process"
)

// conformanceLimit bounds one run of h2spec, which takes some seconds.
const conformanceLimit = 5 * time.Minute

// leastCases is how many cases h2spec 2.2 has; fewer would mean that it did not
// look at everything.
const leastCases = 146

var buildH2spec = sync.OnceValues(func() (string, error) {
	return binaries.Build(context.Background(), os.Stderr, binaries.H2spec)
})

// conformance is one case of h2spec, as its program prints it.
type conformance struct {
	ID, Text, Error string
	Skipped         bool
	Seconds         float64
}

// TestHTTP2Conformance runs h2spec against the clients' leg, with an etcd
// behind it.
func TestHTTP2Conformance(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, secure)
			cfg := l.proxyConfig(t)
			var args []string
			if secure {
				cfg = l.secureProxyConfig(t)
				client := l.authority.Client(t, "h2spec")
				args = append(args, "-cert="+client.CertFile, "-key="+client.KeyFile)
			}
			proxy := etcdseal.Start(t, cfg)
			checkConformance(t, runH2spec(t, proxy.Address(), args...))
		})
	}
}

// runH2spec runs all cases against a server on loopback.
func runH2spec(t *testing.T, address string, args ...string) []conformance {
	t.Helper()
	bin, err := buildH2spec()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "h2spec.json")
	process.Run(t, conformanceLimit, filepath.Join(bin, "h2spec"), append(args, "-port="+port, "-out="+out)...)
	file, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var list []conformance
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var c conformance
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("reading h2spec's results: %v", err)
		}
		list = append(list, c)
	}
	return list
}

func checkConformance(t *testing.T, cases []conformance) {
	t.Helper()
	skipped := 0
	for _, c := range cases {
		if c.Error != "" {
			t.Errorf("%s (%s): %s", c.ID, c.Text, c.Error)
		}
		if c.Skipped {
			skipped++
			t.Logf("%s (%s): skipped by h2spec", c.ID, c.Text)
		}
	}
	if len(cases) < leastCases {
		t.Errorf("h2spec ran %d cases, want at least %d", len(cases), leastCases)
	}
	slow := slices.MaxFunc(cases, func(a, b conformance) int { return cmp.Compare(a.Seconds, b.Seconds) })
	t.Logf("%d cases, %d of them skipped; the slowest, %s, took %.1f s", len(cases), skipped, slow.ID, slow.Seconds)
}
