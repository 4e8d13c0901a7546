package e2e

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/process"
)

// pythonLimit bounds one run of the script, of which each call has a limit of its own.
const pythonLimit = 3 * time.Minute

// leastPythonAnswers is how many answers the script prints at least.
const leastPythonAnswers = 20

// TestPythonClient has Python's gRPC, whose HTTP/2 is of another make than Go's, do
// the same with etcd and with etcdseal in front of it, and then with TLS.
func TestPythonClient(t *testing.T) {
	python := findPython(t)
	descriptors := writeDescriptors(t)
	run := func(target string, more ...string) []string {
		t.Helper()
		script := filepath.Join("testdata", "client.py")
		out := process.Run(t, pythonLimit, python, append([]string{script, target, descriptors, etcdseal.SecretsPrefix}, more...)...)
		return strings.Split(strings.TrimSpace(out), "\n")
	}
	direct, through := newSides(t, "")
	want := run(direct.conn.Target())
	if len(want) < leastPythonAnswers {
		t.Errorf("%d answers of etcd, want at least %d:\n%s", len(want), leastPythonAnswers, strings.Join(want, "\n"))
	}
	if diff := cmp.Diff(want, run(through.conn.Target())); diff != "" {
		t.Errorf("what Python sees (-etcd +etcdseal):\n%s", shorten(diff))
	}
	for key, value := range etcd.Pairs(t, through.lab.raw, etcdseal.SecretsPrefix) {
		if !etcd.IsEnvelope(value) {
			t.Errorf("%q is not stored as an envelope", key)
		}
	}
	t.Run("TLS", func(t *testing.T) {
		l := newLab(t, true)
		cfg := l.secureProxyConfig(t)
		cfg.KeyringFile = filepath.Join(t.TempDir(), "keyring.json")
		client := l.authority.Client(t, "python")
		got := run(etcdseal.Start(t, cfg).Address(), l.authority.CAFile(), client.CertFile, client.KeyFile)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what Python sees over TLS (-etcd +etcdseal):\n%s", shorten(diff))
		}
	})
}

// findPython returns an interpreter that has gRPC: Debian's with python3-grpcio, or
// another. Only where the machine is not the project's to set up may it be missing.
func findPython(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import grpc, google.protobuf").Run() == nil {
			return python
		}
	}
	const missing = "no python3 with grpcio here (Debian: apt-get install python3-grpcio)"
	if os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// writeDescriptors writes the descriptors of etcd's API and of all that they are made
// of into a file.
func writeDescriptors(t *testing.T) string {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		fd, err := protoregistry.GlobalFiles.FindFileByPath(name)
		if err != nil { // etcd's own files are registered by their last name alone
			fd, err = protoregistry.GlobalFiles.FindFileByPath(path.Base(name))
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range fd.Imports().Len() {
			add(fd.Imports().Get(i).Path())
		}
		file := protodesc.ToFileDescriptorProto(fd)
		file.Name = proto.String(name)
		set.File = append(set.File, file)
	}
	add(etcdserverpb.File_rpc_proto.Path())
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "descriptors")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
