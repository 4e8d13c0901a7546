package wire

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// apis are the files whose services etcd serves.
var apis = []protoreflect.FileDescriptor{
	etcdserverpb.File_rpc_proto,
	v3electionpb.File_v3election_proto,
	v3lockpb.File_v3lock_proto,
	grpc_health_v1.File_grpc_health_v1_health_proto,
}

// otherBytes are the fields of bytes in messages that Parse does not read, and
// why they need no rewriting. A field that is neither here nor in the tables
// fails TestEveryBytesFieldIsClassified.
var otherBytes = map[protoreflect.FullName]string{
	"etcdserverpb.SnapshotResponse.blob":                     "the database file, which stays as it is",
	"etcdserverpb.LeaseTimeToLiveResponse.keys":              "keys",
	"etcdserverpb.AuthRoleRevokePermissionRequest.key":       "a key",
	"etcdserverpb.AuthRoleRevokePermissionRequest.range_end": "a key",
	"authpb.Permission.key":                                  "a key",
	"authpb.Permission.range_end":                            "a key",
	"v3electionpb.LeaderKey.name":                            "an election's name",
	"v3electionpb.LeaderKey.key":                             "a key",
	"v3lockpb.LockResponse.key":                              "a key",
}

// valueBytes are the fields of bytes that hold values. All of them must be in
// the tables, in a message that is reached with the right mark.
var valueBytes = []protoreflect.FullName{
	"mvccpb.KeyValue.value",
	"etcdserverpb.PutRequest.value",
	"etcdserverpb.Compare.value",
	"v3electionpb.CampaignRequest.value",
	"v3electionpb.ProclaimRequest.value",
}

// rpcs calls f for every method of every service.
func rpcs(f func(path string, md protoreflect.MethodDescriptor)) {
	for _, file := range apis {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				md := service.Methods().Get(j)
				f("/"+string(service.FullName())+"/"+string(md.Name()), md)
			}
		}
	}
}

// apiPackages are the protobuf packages of etcd's API. All of their files are linked
// into this test.
var apiPackages = []protoreflect.FullName{"etcdserverpb", "mvccpb", "authpb", "v3electionpb", "v3lockpb", "grpc.health.v1"}

// unused are messages of the API, or files of them, that no method carries, and why
// not. What is neither carried nor here fails TestMessagesAreThoseOfTheAPI.
var unused = map[string]string{
	"raft_internal.proto": "what members write into their log",
	"etcdserver.proto":    "what members keep on disk",

	"etcdserverpb.LeaseCheckpoint":             "for the log alone",
	"etcdserverpb.LeaseCheckpointRequest":      "for the log alone",
	"etcdserverpb.LeaseCheckpointResponse":     "for the log alone",
	"etcdserverpb.DowngradeVersionTestRequest": "for the log alone, in tests",
	"authpb.User": "what a store keeps of a user",
	"authpb.Role": "what a store keeps of a role",
}

// TestMessagesAreThoseOfTheAPI finds services, and messages, that etcd's API has got
// and nobody has looked at.
func TestMessagesAreThoseOfTheAPI(t *testing.T) {
	carried := map[protoreflect.FullName]bool{}
	rpcs(func(_ string, md protoreflect.MethodDescriptor) {
		collect(md.Input(), carried)
		collect(md.Output(), carried)
	})
	left := maps.Clone(unused)
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		if !slices.Contains(apiPackages, fd.Package()) {
			return true
		}
		if fd.Services().Len() > 0 && !slices.Contains(apis, fd) {
			t.Errorf("%s has services that are not classified", fd.Path())
		}
		delete(left, fd.Path())
		if unused[fd.Path()] != "" {
			return true
		}
		for i := range fd.Messages().Len() {
			name := fd.Messages().Get(i).FullName()
			if carried[name] == (unused[string(name)] != "") {
				t.Errorf("%s: carried by a method: %v, said to be unused: %v", name, carried[name], unused[string(name)] != "")
			}
			delete(left, string(name))
		}
		return true
	})
	for name := range left {
		t.Errorf("%s is not in etcd's API", name)
	}
}

// collect adds a message and all that it can hold.
func collect(md protoreflect.MessageDescriptor, to map[protoreflect.FullName]bool) {
	if to[md.FullName()] {
		return
	}
	to[md.FullName()] = true
	for i := range md.Fields().Len() {
		if m := md.Fields().Get(i).Message(); m != nil {
			collect(m, to)
		}
	}
}

func TestMethodsAreThoseOfTheAPI(t *testing.T) {
	unseen := maps.Clone(methods)
	rpcs(func(path string, md protoreflect.MethodDescriptor) {
		m, ok := Lookup(path)
		if !ok {
			t.Errorf("%s is not classified", path)
			return
		}
		delete(unseen, path)
		if m.ClientStreams != md.IsStreamingClient() || m.ServerStreams != md.IsStreamingServer() {
			t.Errorf("%s: streams %v %v, want %v %v", path, m.ClientStreams, m.ServerStreams, md.IsStreamingClient(), md.IsStreamingServer())
		}
		if m.Request != NoMessage && m.Request.String() != string(md.Input().FullName()) {
			t.Errorf("%s: request %s, want %s", path, m.Request, md.Input().FullName())
		}
		if m.Response != NoMessage && m.Response.String() != string(md.Output().FullName()) {
			t.Errorf("%s: response %s, want %s", path, m.Response, md.Output().FullName())
		}
	})
	for path := range unseen {
		t.Errorf("%s is not in etcd's API", path)
	}
}

// TestEveryBytesFieldIsClassified walks all messages of all RPCs. Where a value
// can be, Parse must read the message.
func TestEveryBytesFieldIsClassified(t *testing.T) {
	left := map[protoreflect.FullName]bool{}
	for _, name := range valueBytes {
		left[name] = true
	}
	for name := range otherBytes {
		left[name] = true
	}
	rpcs(func(path string, md protoreflect.MethodDescriptor) {
		m, _ := Lookup(path)
		for _, side := range []struct {
			md   protoreflect.MessageDescriptor
			read Message
		}{{md.Input(), m.Request}, {md.Output(), m.Response}} {
			carries := false
			for _, fd := range bytesFields(side.md, map[protoreflect.FullName]bool{}) {
				isValue := slices.Contains(valueBytes, fd.FullName())
				carries = carries || isValue
				_, isOther := otherBytes[fd.FullName()]
				delete(left, fd.FullName())
				inTables := side.read != NoMessage && schemaOf(fd.ContainingMessage()) != NoMessage
				if !isOther && !inTables {
					t.Errorf("%s: %s is not classified", path, fd.FullName())
				}
			}
			if carries && side.read == NoMessage {
				t.Errorf("%s: %s carries values and is not read", path, side.md.FullName())
			}
			if carries && m.Class != Rewritten {
				t.Errorf("%s carries values and has class %d", path, m.Class)
			}
		}
		if m.Class != Rewritten && m.Response != NoMessage {
			t.Errorf("%s: responses of class %d need not be read", path, m.Class)
		}
		if (m.Class == Passed) != (m.Request == NoMessage) {
			t.Errorf("%s: class %d with request %s", path, m.Class, m.Request)
		}
	})
	for name := range left {
		t.Errorf("%s is not in etcd's API", name)
	}
}

// bytesFields returns every field of bytes that a message can hold.
func bytesFields(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) (list []protoreflect.FieldDescriptor) {
	if seen[md.FullName()] {
		return nil
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.Kind() == protoreflect.BytesKind {
			list = append(list, fd)
		}
		if fd.Message() != nil {
			list = append(list, bytesFields(fd.Message(), seen)...)
		}
	}
	return list
}

// schemaOf returns the message with the descriptor's name.
func schemaOf(md protoreflect.MessageDescriptor) Message {
	for m := NoMessage + 1; m < numMessages; m++ {
		if m.String() == string(md.FullName()) {
			return m
		}
	}
	return NoMessage
}

// TestTablesMatchTheDescriptors compares every field of every schema with the
// generated code: none missing, none too many, right kinds, repetition, oneofs,
// and the mark on embedded messages that hold values.
func TestTablesMatchTheDescriptors(t *testing.T) {
	checked := map[Message]bool{}
	for m := RangeRequest; m < header; m++ {
		checkSchema(t, m, generated(m).ProtoReflect().Descriptor(), checked)
	}
	for m := RangeRequest; m < numMessages; m++ {
		if !checked[m] {
			t.Errorf("%s is no part of any message", m)
		}
	}
}

func checkSchema(t *testing.T, m Message, md protoreflect.MessageDescriptor, checked map[Message]bool) {
	if checked[m] {
		return
	}
	checked[m] = true
	if m.String() != string(md.FullName()) {
		t.Errorf("the schema of %s has the name %s", md.FullName(), m)
	}
	c := &schemas[m]
	left := map[uint64]field{}
	for n, f := range c.fields {
		if f != (field{}) {
			left[uint64(n)] = f
		}
	}
	if c.farNumber != 0 {
		left[c.farNumber] = c.far
	}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		got := left[uint64(fd.Number())]
		delete(left, uint64(fd.Number()))
		want := fieldOf(fd)
		got.slot, got.prev = 0, false
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(field{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", fd.FullName(), diff)
		}
		if fd.Message() != nil {
			checkSchema(t, want.sub, fd.Message(), checked)
		}
	}
	for n := range left {
		t.Errorf("%s has no field %d", m, n)
	}
}

// fieldOf returns what the table must say of a field.
func fieldOf(fd protoreflect.FieldDescriptor) field {
	f := field{many: fd.IsList(), solid: fd.Name() == "range_end"}
	if o := fd.ContainingOneof(); o != nil {
		f.oneof = uint8(o.Fields().Get(0).Number())
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		f.kind, f.sub = embedded, schemaOf(fd.Message())
		f.values = slices.ContainsFunc(bytesFields(fd.Message(), map[protoreflect.FullName]bool{}), func(b protoreflect.FieldDescriptor) bool {
			return slices.Contains(valueBytes, b.FullName()) && b.FullName() != "etcdserverpb.Compare.value"
		})
	case protoreflect.BytesKind:
		f.kind = bytesof
	case protoreflect.StringKind:
		f.kind = text
	case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.BoolKind, protoreflect.EnumKind:
		f.kind = scalar
		if fd.IsList() {
			f.kind = scalars
		}
	}
	return f
}

func TestLookup(t *testing.T) {
	for _, path := range []string{
		"", "/", "etcdserverpb.KV/Put", "/etcdserverpb.KV/Put/", "/etcdserverpb.KV/%50ut", "/etcdserverpb.KV/Put?x=1",
		"/etcdserverpb.kv/Put", "//etcdserverpb.KV/Put", "/etcdserverpb.KV/Put\x00",
	} {
		if m, ok := Lookup(path); ok {
			t.Errorf("Lookup(%q) = %s", path, m.Path)
		}
	}
	for _, m := range Methods() {
		if got, ok := Lookup([]byte(m.Path)); !ok || got != m {
			t.Errorf("Lookup(%q) = %v %v", m.Path, got, ok)
		}
	}
	path := []byte("/etcdserverpb.KV/RangeStream")
	if n := testing.AllocsPerRun(100, func() { Lookup(path) }); n != 0 {
		t.Errorf("Lookup of bytes allocates %v times", n)
	}
}

// TestFarFieldBits checks that no two fields of a message share a bit unless
// they are members of one oneof.
func TestFarFieldBits(t *testing.T) {
	for m := range numMessages {
		c := &schemas[m]
		seen := map[uint32]uint8{}
		each := func(n uint64, f *field) {
			if f.kind == unknown || f.many {
				return
			}
			if o, ok := seen[f.bit(n)]; ok && (o == 0 || o != f.oneof) {
				t.Errorf("%s: field %d shares its bit", m, n)
			}
			seen[f.bit(n)] = f.oneof
		}
		for n := range c.fields {
			each(uint64(n), &c.fields[n])
		}
		if c.farNumber != 0 {
			each(c.farNumber, &c.far)
		}
	}
}
