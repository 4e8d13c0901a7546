package proxy_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/etcdseal/etcdseal/proxy/wire"
)

var update = flag.Bool("update", false, "write docs/COMPATIBILITY.md anew")

// TestMethodsThatEtcdServes asks a server of etcd for its methods. Every one of them
// must be classified.
func TestMethodsThatEtcdServes(t *testing.T) {
	services := make(chan map[string]grpc.ServiceInfo, 1)
	startEtcdWith(t, func(s *grpc.Server) { services <- s.GetServiceInfo() }) // when all are registered
	served := map[string]bool{}
	for service, info := range <-services {
		for _, m := range info.Methods {
			path := "/" + service + "/" + m.Name
			served[path] = true
			known, ok := wire.Lookup(path)
			if !ok {
				t.Errorf("%s is not classified", path)
			} else if known.ClientStreams != m.IsClientStream || known.ServerStreams != m.IsServerStream {
				t.Errorf("%s has streams %v %v", path, m.IsClientStream, m.IsServerStream)
			}
		}
	}
	for _, m := range wire.Methods() {
		if !served[m.Path] {
			t.Errorf("etcd does not serve %s", m.Path)
		}
	}
}

// TestCompatibilityDocument makes docs/COMPATIBILITY.md and compares it with the file.
// Run it with -update to write the file.
func TestCompatibilityDocument(t *testing.T) {
	want := document(t)
	file := filepath.Join("..", "docs", "COMPATIBILITY.md")
	if *update {
		must(t, os.WriteFile(file, []byte(want), 0o644))
	}
	got, err := os.ReadFile(file)
	must(t, err)
	if string(got) != want {
		t.Errorf("%s is out of date: run go test ./proxy -run TestCompatibilityDocument -update", file)
	}
}

// document derives the whole text from the tables of proxy/wire, the descriptors of
// etcd's API, and the exceptions.
func document(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Compatibility

What etcd's clients get from etcdseal, for every method of etcd's API and every option of a request. This file is made by
` + "`go test ./proxy -run TestCompatibilityDocument -update`" + ` from the tables that etcdseal works by, and a test makes each call that is not the same.

- **same as etcd**: the answer is etcd's own: messages, codes, texts, headers. Values under a rule are sealed on the way in and opened on the way out.
- **assisted**: the answer is what etcd's would have been on plaintext, and takes more than one call to etcd.
- **refused**: etcdseal answers with an error of its own, whose text begins with ` + "`etcdseal: `" + `.

Keys under no rule: everything is the same as etcd, but for writes under the reserved prefix of the keyring, which are refused (PermissionDenied). A method that is
not in this list is refused as etcd refuses it (Unimplemented), unless the configuration allows it.

## Methods

| method | what etcdseal does | answer |
|---|---|---|
`)
	list := wire.Methods()
	slices.SortFunc(list, func(a, b wire.Method) int { return strings.Compare(a.Path, b.Path) })
	writing := map[string]bool{}
	for _, m := range list {
		writes, values := requestOf(t, m)
		writing[m.Path] = writes
		answers := []string{string(same)}
		if remark := remarks[m.Path]; remark != "" {
			answers = append(answers, remark)
		}
		if writes {
			answers = append(answers, "under the reserved prefix: refused")
		}
		answers = append(answers, exceptionTexts(m.Path)...)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.TrimPrefix(m.Path, "/"), doing(m, values), strings.Join(answers, "; "))
	}
	for path := range reservedRequests {
		if !writing[path] {
			t.Errorf("%s is no method that writes", path)
		}
		delete(writing, path)
	}
	for path, writes := range writing {
		if writes {
			t.Errorf("no request shows that %s cannot write under the reserved prefix", path)
		}
	}
	b.WriteString("\n## Options\n\nEvery field of a request, and each of its values where they differ.\n\n| option | answer |\n|---|---|\n")
	seen := map[protoreflect.FullName]bool{}
	for _, m := range list {
		writeOptions(&b, method(m.Path).Input(), seen)
	}
	for _, e := range exceptions {
		if !strings.Contains(b.String(), "| `"+strings.TrimPrefix(e.what, "/")+"` |") {
			t.Errorf("%s is no method or option", e.what)
		}
	}
	b.WriteString(besideTheAPI)
	return b.String()
}

// besideTheAPI is what no table knows.
const besideTheAPI = `
## Beside the API

- A sealed value is 48 bytes longer: a request that is that close to etcd's limit (--max-request-bytes) is too large, and chunks of RangeStream and fragments of a
  watch are cut where etcd cuts what it stores.
- Versions: 3.5, 3.6 and 3.7 are tested (by e2e), and etcdseal doctor warns of others. An etcd before 3.5.8 (or 3.4.25) may leave out a part of its history (etcd issue 15220): it can be used, but
  etcdseal verify --history and etcdseal keyring gc refuse it.
- etcd's authentication by the common name of a client's certificate cannot work through a proxy; users with passwords and tokens can.
`

// doing says what the tables have etcdseal do with a method's messages.
func doing(m wire.Method, requestValues bool) string {
	var does []string
	if m.Class == wire.Passed {
		return "passes it on"
	}
	does = append(does, "checks the keys")
	if requestValues {
		does = append(does, "seals values")
	}
	if m.Response != wire.NoMessage {
		does = append(does, "opens values")
	}
	return strings.Join(does, ", ")
}

// requestOf has proxy/wire read a request in which every field is set, and reports
// whether it found a write and a value to seal.
func requestOf(t *testing.T, m wire.Method) (writes, values bool) {
	t.Helper()
	if m.Request == wire.NoMessage {
		return false, false
	}
	message := newMessage(method(m.Path).Input())
	fill(message.ProtoReflect(), 0)
	b, err := proto.Marshal(message)
	must(t, err)
	var scan wire.Scan
	must(t, scan.Parse(m.Request, b))
	for _, op := range scan.Ops {
		writes = writes || op.Kind == wire.OpPut || op.Kind == wire.OpDelete
		values = values || op.Kind == wire.OpPut && op.Value >= 0 && len(scan.Values[op.Value].Old) > 0
	}
	return writes, values
}

// fill sets every field, to the first member of a oneof and down to some depth.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsMap() || fd.Kind() == protoreflect.MessageKind && depth > 3:
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			list := m.Mutable(fd).List()
			for j := range members(fd.Message()) {
				e := list.AppendMutable().Message()
				fill(e, depth+1)
				choose(e, j, depth)
			}
		case fd.IsList():
		case fd.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(fd).Message(), depth+1)
		case fd.Kind() == protoreflect.BytesKind:
			m.Set(fd, protoreflect.ValueOfBytes(bytes.Repeat([]byte("k"), 5)))
		}
	}
}

// members is how many members the oneof of a message has, 1 for a message without.
func members(md protoreflect.MessageDescriptor) int {
	if md.Oneofs().Len() == 0 {
		return 1
	}
	return md.Oneofs().Get(0).Fields().Len()
}

// choose sets the member of a oneof with an index.
func choose(m protoreflect.Message, index, depth int) {
	if m.Descriptor().Oneofs().Len() == 0 {
		return
	}
	fd := m.Descriptor().Oneofs().Get(0).Fields().Get(index)
	if fd.Kind() == protoreflect.MessageKind && depth <= 3 {
		fill(m.Mutable(fd).Message(), depth+2)
	}
}

// writeOptions writes a row for each field of a message and of those in it.
func writeOptions(b *strings.Builder, md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) {
	if seen[md.FullName()] {
		return
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.Message() != nil {
			writeOptions(b, fd.Message(), seen)
			continue
		}
		name := string(md.FullName()) + "." + string(fd.Name())
		fmt.Fprintf(b, "| `%s` | %s |\n", name, strings.Join(append([]string{string(same)}, exceptionTexts(name)...), "; "))
		if fd.Enum() == nil {
			continue
		}
		for j := range fd.Enum().Values().Len() {
			value := name + "=" + string(fd.Enum().Values().Get(j).Name())
			if texts := exceptionTexts(value); texts != nil {
				fmt.Fprintf(b, "| `%s` | %s |\n", value, strings.Join(append([]string{string(same)}, texts...), "; "))
			}
		}
	}
}

// exceptionTexts says what is not the same of a method or an option.
func exceptionTexts(what string) (texts []string) {
	for _, e := range exceptions {
		if e.what == what {
			texts = append(texts, fmt.Sprintf("%s: %s, because %s", e.where, e.verdict, e.because))
		}
	}
	return texts
}

// method is the descriptor of a method that wire knows.
func method(path string) protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		panic(err)
	}
	return d.(protoreflect.MethodDescriptor)
}

func newMessage(md protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err != nil {
		panic(err)
	}
	return t.New().Interface()
}
