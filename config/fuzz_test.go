package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzParse checks that no text makes Parse panic, that a refusal always names
// a problem on one line, and that an accepted configuration keeps the promises
// the rest of the program relies on.
func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range append(seeds, "testdata/full.yaml") {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(minimal))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, "/etc/etcdseal")
		if err != nil {
			checkProblems(t, err)
			return
		}
		if len(c.KEKs) == 0 || len(c.Rules) == 0 || len(c.Etcd.Endpoints) == 0 || c.Keyring.Name == "" {
			t.Errorf("accepted an incomplete configuration: %+v", c)
		}
		if !c.Listen.Insecure && c.Listen.TLS.ClientCAFile == "" && !strings.HasPrefix(c.Listen.Address, "unix:///") {
			t.Errorf("accepted a listener that lets everyone in: %+v", c.Listen)
		}
		for _, rule := range c.Rules {
			for _, name := range append(slices.Clone(rule.RecoveryKEKs), rule.KEK) {
				switch k := c.KEKs[name]; {
				case !oneProvider(k):
					t.Errorf("rule %q has no KEK %q", rule.Prefix, name)
				case k.KMSv2 != nil && !strings.HasPrefix(k.KMSv2.Endpoint, "unix:///"):
					t.Errorf("KEK %q has its plugin at %q", name, k.KMSv2.Endpoint)
				}
			}
			if c.Keyring.Prefix != "" && strings.HasPrefix(c.Keyring.Prefix, rule.Prefix) {
				t.Errorf("rule %q covers the reserved prefix %q", rule.Prefix, c.Keyring.Prefix)
			}
		}
		for name, kek := range c.KEKs {
			if a := kek.AzureKeyVault; a != nil && (!strings.HasPrefix(a.VaultURL, "https://") || a.Key == "" || a.Credential.Type == "" || a.TryTimeout > a.Timeout) {
				t.Errorf("accepted an incomplete KEK %q: %+v", name, a)
			}
		}
		for _, file := range c.files() {
			if *file.name != "" && !filepath.IsAbs(*file.name) {
				t.Errorf("%s is relative: %q", file.path, *file.name)
			}
		}
	})
}

// checkProblems fails unless err is an *Error whose text has one line for each
// problem.
func checkProblems(t *testing.T, err error) {
	t.Helper()
	var problems *Error
	if !errors.As(err, &problems) || len(problems.Problems) == 0 {
		t.Fatalf("error is %T with no problems: %v", err, err)
	}
	if got, want := strings.Count(err.Error(), "\n"), len(problems.Problems); got != want {
		t.Errorf("%d lines for %d problems:\n%v", got, want, err)
	}
}

// oneProvider says whether a KEK has exactly one provider.
func oneProvider(k KEK) bool {
	n := 0
	for _, given := range []bool{k.Local != nil, k.AzureKeyVault != nil, k.KMSv2 != nil} {
		if given {
			n++
		}
	}
	return n == 1
}
