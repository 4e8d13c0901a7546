// Package etcdseal_test keeps the layout of docs/DESIGN.md true: which package may
// import which.
package etcdseal_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/etcdseal/etcdseal/"

// goPackage is what the go command says of a package. Tests' imports are not in
// it: tests may import what they like.
type goPackage struct {
	ImportPath     string
	Imports        []string
	Deps           []string
	IgnoredGoFiles []string
}

// packages returns all packages of the module, their paths relative to it.
func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	touchSources(t)
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps,IgnoredGoFiles", "./...").Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			t.Fatalf("listing packages: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("listing packages: %v", err)
	}
	listed := map[string]goPackage{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return listed
		} else if err != nil {
			t.Fatalf("parsing the go command's answer: %v", err)
		}
		listed[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

// touchSources opens every source file. The go command caches a test's result
// for as long as the files that the test itself opened are the same; it does not
// know what the go list below reads.
func touchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (path == "e2e" || path == "bin" || path == ".git") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return f.Close()
	})
	if err != nil {
		t.Fatalf("opening the sources: %v", err)
	}
}

// under says whether path is root or below it.
func under(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// TestLayout asks the go command once and checks every rule.
func TestLayout(t *testing.T) {
	listed := packages(t)
	for name, check := range map[string]func(*testing.T, map[string]goPackage){
		"independent packages import nothing of the project": testIndependence,
		"outside modules stay in their place":                testPlaces,
		"the relay knows nothing of etcd":                    testRelay,
		"the binary links no etcd server and no test code":   testBinary,
		"nothing imports commands":                           testCommands,
		"the emulator is independent of the SDK":             testEmulator,
	} {
		t.Run(name, func(t *testing.T) { check(t, listed) })
	}
}

// testIndependence covers the packages at the
// bottom and what each of them may nevertheless import.
func testIndependence(t *testing.T, listed map[string]goPackage) {
	for path, allowed := range map[string][]string{
		"audit":           {"kek"},
		"config":          nil,
		"crypto/envelope": nil,
		"kek":             nil,
		"kek/kmsv2":       {"kek"},
		"kek/local":       {"kek"},
		"kek/kektest":     {"kek"},
		"kek/azure":       {"kek"},
		// The emulator stands for somebody else's service.
		"kek/azure/emulator": nil,
		"proxy/wire":         nil,
		"proxy/relay":        {"proxy/socket"},
		"proxy/socket":       nil,
		"proxy/assist":       nil,
		"proxy/gateway":      nil,
		"crypto/dek":         {"crypto/envelope", "kek"},
	} {
		p, ok := listed[path]
		if !ok {
			t.Errorf("there is no package %s", path)
			continue
		}
		for _, dep := range p.Deps {
			if of, ok := strings.CutPrefix(dep, module); ok && !slices.Contains(allowed, of) {
				t.Errorf("%s depends on %s", path, of)
			}
		}
	}
}

// testPlaces covers the modules that only certain packages
// may import.
func testPlaces(t *testing.T, listed map[string]goPackage) {
	for _, rule := range []struct {
		outside string
		in      []string
	}{
		{"github.com/Azure", []string{"kek/azure"}},
		{"github.com/AzureAD", nil},
		{"github.com/goccy/go-yaml", []string{"config"}},
		{"github.com/hashicorp/golang-lru", []string{"crypto/dek"}},
		{"k8s.io/kms", []string{"kek/kmsv2", "bench/kube/kmsplugin"}},
		{"go.etcd.io/etcd/client/v3", []string{"crypto/dek/etcdstore", "proxy/assist", "migrate", "doctor", "bench", "cmd/quickstart"}},
		{"go.etcd.io/etcd/server/v3", []string{"bench", "cmd/quickstart"}},
		{"github.com/grpc-ecosystem/grpc-gateway", []string{"proxy/gateway"}},
		{"github.com/gorilla/websocket", []string{"proxy/gateway"}},
		{"github.com/HdrHistogram", []string{"bench"}},
		{"gonum.org/v1/plot", []string{"bench"}},
	} {
		for path, p := range listed {
			for _, imported := range p.Imports {
				if under(imported, rule.outside) && !isMessages(imported) && !slices.ContainsFunc(rule.in, func(root string) bool { return under(path, root) }) {
					t.Errorf("%s imports %s, which only %s may", path, imported, strings.Join(rule.in, ", "))
				}
			}
		}
	}
}

// testEmulator keeps the emulated vault apart from the client that is tested with
// it: what both have in common cannot be tested by either.
func testEmulator(t *testing.T, listed map[string]goPackage) {
	for _, dep := range listed["kek/azure/emulator"].Deps {
		if under(dep, "github.com/Azure") || under(dep, "github.com/AzureAD") {
			t.Errorf("kek/azure/emulator depends on %s", dep)
		}
	}
}

// isMessages says whether a package of etcd's server module holds nothing but
// generated messages and their JSON form: Election's and Lock's are published nowhere
// else.
func isMessages(path string) bool {
	switch path {
	case "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb",
		"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw",
		"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb",
		"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw":
		return true
	}
	return false
}

// testRelay keeps the relay to bytes and streams: of gRPC it knows the status
// codes, of etcd nothing.
func testRelay(t *testing.T, listed map[string]goPackage) {
	for _, imported := range listed["proxy/relay"].Imports {
		if under(imported, "google.golang.org/grpc") && imported != "google.golang.org/grpc/codes" {
			t.Errorf("proxy/relay imports %s", imported)
		}
	}
	for _, dep := range listed["proxy/relay"].Deps {
		if under(dep, "go.etcd.io") || under(dep, "google.golang.org/protobuf") {
			t.Errorf("proxy/relay depends on %s", dep)
		}
	}
}

// testBinary keeps etcd's server and test code out of the
// production binary.
func testBinary(t *testing.T, listed map[string]goPackage) {
	p, ok := listed["cmd/etcdseal"]
	if !ok {
		t.Fatal("there is no package cmd/etcdseal")
	}
	if !slices.Contains(p.IgnoredGoFiles, "profile_bench.go") {
		t.Error("cmd/etcdseal is built with the benchmark's profiles")
	}
	for _, dep := range p.Deps {
		server := under(dep, "go.etcd.io/etcd/server/v3") && !isMessages(dep)
		of, ours := strings.CutPrefix(dep, module)
		test := dep == "testing" || ours && (strings.HasSuffix(of, "test") || under(of, "kek/azure/emulator"))
		if server || test {
			t.Errorf("cmd/etcdseal depends on %s", dep)
		}
	}
}

// testCommands keeps packages from importing commands.
func testCommands(t *testing.T, listed map[string]goPackage) {
	for path, p := range listed {
		for _, imported := range p.Imports {
			if of, ok := strings.CutPrefix(imported, module); ok && (under(of, "cmd") || under(of, "kek/azure/emulator/cmd") || under(of, "bench/kube/kmsplugin")) {
				t.Errorf("%s imports %s", path, of)
			}
		}
	}
}
