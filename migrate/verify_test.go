package migrate_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/migrate"
)

// verify returns the findings.
func (l *lab) verify(e *migrate.Engine, history bool) []migrate.Finding {
	l.Helper()
	var all []migrate.Finding
	if _, err := e.Verify(l.Context(), "", history, func(f migrate.Finding) { all = append(all, f) }); err != nil {
		l.Fatal(err)
	}
	return all
}

func TestVerify(t *testing.T) {
	l := newLab(t)
	p := l.process()
	e := l.engine(p, true)
	l.put(prefix+"a", "plain 1")
	l.put(prefix+"gone", "plain, and deleted")
	if _, err := l.client.Delete(t.Context(), prefix+"gone"); err != nil {
		t.Fatal(err)
	}
	l.put("/registry/pods/a", "not under a rule")
	if got := l.verify(e, false); len(got) != 1 || string(got[0].Key) != prefix+"a" || got[0].Place != migrate.Live || !errors.Is(got[0].Err, migrate.ErrPlaintext) {
		t.Errorf("live: %v", got)
	}
	l.run(e, migrate.Job{Kind: migrate.Encrypt})
	if got := l.verify(e, false); len(got) != 0 {
		t.Errorf("live, encrypted: %v", got)
	}
	if got := l.verify(e, true); len(got) != 2 || got[0].Place != migrate.History || string(got[1].Key) != prefix+"gone" {
		t.Errorf("history: %v", got)
	}
	// After a compaction what was there at that revision is still retained.
	l.put(prefix+"b", "plain 2")
	at := l.put3(prefix+"c", "plain 3")
	l.run(e, migrate.Job{Kind: migrate.Encrypt})
	if _, err := l.client.Compact(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if got := l.verify(e, true); len(got) != 2 || string(got[0].Key) != prefix+"b" || string(got[1].Key) != prefix+"c" {
		t.Errorf("history after a compaction: %v", got)
	}
	purged, err := e.Purge(t.Context(), l.client)
	if err != nil || len(purged.Members) != 1 || purged.Failed() || !purged.Members[0].Leader || purged.Members[0].After == 0 {
		t.Errorf("purge: %+v, %v", purged, err)
	}
	if got := l.verify(e, true); len(got) != 0 {
		t.Errorf("history after a purge: %v", got)
	}
	key, err := p.sealer.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.put(prefix+"moved", string(key.Seal(nil, []byte("elsewhere"), []byte("x"))))
	if got := l.verify(e, false); len(got) != 1 || !errors.Is(got[0].Err, envelope.ErrAuthentication) {
		t.Errorf("an envelope that was moved: %v", got)
	}
}

// put3 puts and returns the revision.
func (l *lab) put3(key, value string) int64 {
	l.Helper()
	answer, err := l.client.Put(l.Context(), key, value)
	if err != nil {
		l.Fatal(err)
	}
	return answer.Header.Revision
}

// scan returns the findings by their files' names.
func scan(t *testing.T, p *process, path string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	s, err := migrate.NewScanner([]migrate.Rule{{Prefix: prefix, Sealer: p.sealer}, {Prefix: prefix + "open/"}}, func(f migrate.Finding) {
		name := filepath.Base(f.File)
		if !slices.Contains(found[name], string(f.Key)) {
			found[name] = append(found[name], string(f.Key))
		}
		if strings.Contains(f.Err.Error(), "hunter") || f.Kind == "" {
			t.Errorf("%+v", f)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Scan(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if s.Result().Records == 0 {
		t.Error("nothing was looked at")
	}
	return found
}

func TestScan(t *testing.T) {
	l := newLab(t)
	p := l.process()
	l.put(prefix+"a", "hunter2")
	l.put(prefix+"large", strings.Repeat("hunter3", 60_000))
	l.put(prefix+"open/a", "under a rule that does not seal")
	if _, err := l.client.Txn(t.Context()).If(clientv3.Compare(clientv3.Value(prefix+"compared"), "=", "hunter4")).
		Else(clientv3.OpPut(prefix+"txn", "hunter5")).Commit(); err != nil {
		t.Fatal(err)
	}
	l.run(l.engine(p, true), migrate.Job{Kind: migrate.Encrypt})
	s, err := migrate.NewScanner([]migrate.Rule{{Prefix: prefix, Sealer: p.sealer}}, func(migrate.Finding) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"", "member/snap", "member/wal"} {
		if err := s.Scan(t.Context(), filepath.Join(l.dir, part)); !errors.Is(err, migrate.ErrInUse) {
			t.Errorf("a data directory in use, %q: %v", part, err)
		}
	}
	l.stop()
	wal := "0000000000000000-0000000000000000.wal"
	got := scan(t, p, l.dir)
	for _, key := range []string{"a", "large", "txn"} {
		if !slices.Contains(got["db"], prefix+key) || !slices.Contains(got[wal], prefix+key) {
			t.Errorf("%s was not found everywhere: %v", key, got)
		}
	}
	if !slices.Contains(got[wal], prefix+"compared") {
		t.Errorf("the comparison was not found: %v", got)
	}
	if slices.Contains(got["db"], prefix+"open/a") {
		t.Error("a key under a rule that does not seal was found")
	}

	// Compacted, without a defragmentation, it is in free pages; afterwards it is not.
	l.start()
	at := l.put3("any", "x")
	if _, err := l.client.Compact(t.Context(), at, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	l.stop()
	if got := scan(t, p, l.dir); len(got["db"]) == 0 {
		t.Error("nothing was found in free pages")
	}
	l.start()
	if _, err := l.engine(l.process(), true).Purge(t.Context(), l.client); err != nil {
		t.Fatal(err)
	}
	l.stop()
	if got := scan(t, p, l.dir); len(got["db"]) != 0 || len(got[wal]) == 0 {
		t.Errorf("after a purge: %v", got)
	}

	// A truncated WAL put aside as .broken, and databases left behind: one that the leader has
	// sent, one of a defragmentation that was ended, and a snapshot kept as a backup.
	log, err := os.ReadFile(filepath.Join(l.dir, "member", "wal", wal))
	if err != nil {
		t.Fatal(err)
	}
	cut := strings.Index(string(log), "hunter2") + 3
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, wal+".broken"), log[:cut], 0o600); err != nil {
		t.Fatal(err)
	}
	old := record(prefix+"old", "hunter6")
	leftovers := []string{"0000000000000007.snap.db", "db.tmp.123", "backup/snapshot.db"}
	if err := os.Mkdir(filepath.Join(dir, "backup"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range leftovers {
		if err := os.WriteFile(filepath.Join(dir, name), append(make([]byte, 4096), old...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got = scan(t, p, dir)
	if !slices.Contains(got[wal+".broken"], prefix+"a") {
		t.Errorf("a truncated WAL: %v", got)
	}
	for _, name := range leftovers {
		if !slices.Contains(got[filepath.Base(name)], prefix+"old") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestScanBoundaries has records at every place of the scanner's chunks, each of which is
// found once and where it is.
func TestScanBoundaries(t *testing.T) {
	var file []byte
	want := map[int64]string{}
	for i := 0; len(file) < 1<<20; i++ {
		key := fmt.Sprintf("%s%s%d", prefix, strings.Repeat("k", i%211), i)
		want[int64(len(file))] = key
		file = append(file, record(key, "plain")...)
		file = append(file, make([]byte, i%7)...)
	}
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, chunk := range []int64{97, 1009, 4 << 20} {
		left := maps.Clone(want)
		s, err := migrate.NewScanner([]migrate.Rule{{Prefix: prefix, Sealer: &dek.Sealer{}}}, func(f migrate.Finding) {
			if left[f.Offset] != string(f.Key) {
				t.Errorf("chunks of %d: found %q at %d, want %q", chunk, f.Key, f.Offset, left[f.Offset])
			}
			delete(left, f.Offset)
		})
		if err != nil {
			t.Fatal(err)
		}
		s.SetChunk(chunk)
		if err := s.Scan(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		for at, key := range left {
			t.Errorf("chunks of %d: %q at %d was not found", chunk, key, at)
		}
		if got := s.Result(); got.Bytes != int64(len(file)) || got.Findings != int64(len(want)) {
			t.Errorf("chunks of %d: %+v", chunk, got)
		}
	}
	if _, err := migrate.NewScanner([]migrate.Rule{{Prefix: "/r", Sealer: &dek.Sealer{}}}, nil); !errors.Is(err, migrate.ErrShortPrefix) {
		t.Errorf("a short prefix: %v", err)
	}
	// Of rules that do not seal nothing is looked for.
	if _, err := migrate.NewScanner([]migrate.Rule{{Prefix: "/r"}, {Prefix: prefix, Sealer: &dek.Sealer{}}}, nil); err != nil {
		t.Errorf("a short prefix that does not seal: %v", err)
	}
	if _, err := migrate.NewScanner([]migrate.Rule{{Prefix: prefix}}, nil); !errors.Is(err, migrate.ErrNoRule) {
		t.Errorf("no rule that seals: %v", err)
	}
}

// TestScanNotEtcd has files in which a member's plaintext would not be found.
func TestScanNotEtcd(t *testing.T) {
	meta := make([]byte, 8<<10)
	binary.LittleEndian.PutUint32(meta[4<<10+16:], 0xED0CDAED) // the first page is broken
	for _, tt := range []struct {
		name    string
		content []byte
		want    error
	}{
		{"db.gz", []byte("\x1f\x8b compressed"), migrate.ErrPacked},
		{"0000000000000000-0000000000000000.wal.zst", []byte("\x28\xb5\x2f\xfd compressed"), migrate.ErrPacked},
		{"0000000000000000-0000000000000000.wal.gpg", []byte("encrypted"), migrate.ErrNotEtcd},
		{"db", nil, migrate.ErrNotEtcd},
		{"snapshot.db", meta, nil},
		{"0000000000000000-0000000000000000.wal.broken", make([]byte, 100), nil},
		{"anything", record(prefix+"a", "plain"), nil},
	} {
		path := filepath.Join(t.TempDir(), tt.name)
		if err := os.WriteFile(path, tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := migrate.NewScanner([]migrate.Rule{{Prefix: prefix, Sealer: &dek.Sealer{}}}, func(migrate.Finding) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Scan(t.Context(), path); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestVerifyRefused has an etcd that does not let the keyring be read: that says nothing
// about a value.
func TestVerifyRefused(t *testing.T) {
	l := newLab(t)
	l.put(prefix+"a", "plain")
	l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt})
	e := l.engine(l.process(), true, func(c *migrate.Config) { c.Keyring = refused{} })
	_, err := e.Verify(t.Context(), "", false, func(f migrate.Finding) { t.Errorf("found %q: %v", f.Key, f.Err) })
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("verify: %v", err)
	}
	if _, err := e.Survey(t.Context()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("survey: %v", err)
	}
}

// refused is a keyring that etcd's user may not read.
type refused struct{ migrate.Keyring }

func (refused) OpenKey(context.Context, envelope.ID) (*envelope.Key, error) {
	return nil, fmt.Errorf("reading record: %w", rpctypes.ErrPermissionDenied)
}

// record is a record of etcd's database.
func record(key, value string) []byte {
	b := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(key)))
	b = append(append(b, key...), 2<<3, 1, 3<<3, 2, 4<<3, 1, 5<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

// TestScanCut has files that end within a record.
func TestScanCut(t *testing.T) {
	sealed := "\x00es\x01" + strings.Repeat("s", 60)
	for _, tt := range []struct {
		name  string
		value string
		left  int // bytes of the value
		want  string
	}{
		{"plaintext, whole", "hunter2", 7, "plaintext"},
		{"plaintext, cut", "hunter2", 3, "plaintext, the end of which is cut off"},
		{"plaintext, gone", "hunter2", 0, ""},
		{"sealed, whole", sealed, len(sealed), ""},
		{"sealed, cut", sealed, 10, ""},
		{"sealed, cut within the magic", sealed, 2, ""},
		{"looks like the beginning of an envelope, but is not", "\x00e", 2, "plaintext"},
	} {
		path := filepath.Join(t.TempDir(), "0.wal.broken")
		whole := record(prefix+"a", tt.value)
		if err := os.WriteFile(path, whole[:len(whole)-len(tt.value)+tt.left], 0o600); err != nil {
			t.Fatal(err)
		}
		got := ""
		s, err := migrate.NewScanner([]migrate.Rule{{Prefix: prefix, Sealer: &dek.Sealer{}}}, func(f migrate.Finding) { got = f.Err.Error() })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Scan(t.Context(), path); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}
