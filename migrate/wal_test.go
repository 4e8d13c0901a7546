package migrate_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/migrate"
)

// TestSegments reads the log of a real etcd, whole, truncated, and of zeros alone.
func TestSegments(t *testing.T) {
	l := newLab(t)
	dir := filepath.Join(l.dir, "member", "wal")
	before, err := migrate.Segments(dir)
	if err != nil || len(before) != 1 {
		t.Fatalf("%+v, %v", before, err)
	}
	const puts, size = 50, 10_000
	for i := range puts {
		l.put(fmt.Sprint("key", i), strings.Repeat("x", size))
	}
	l.stop()
	after, err := migrate.Segments(dir)
	if err != nil || len(after) != 1 {
		t.Fatalf("%+v, %v", after, err)
	}
	if n := after[0].Entries - before[0].Entries; n < puts || n > puts+20 {
		t.Errorf("%d entries were added by %d puts", n, puts)
	}
	if n := after[0].Used - before[0].Used; n < puts*size || n > puts*(size+500) {
		t.Errorf("%d bytes were added by %d puts of %d", n, puts, size)
	}
	whole, err := os.ReadFile(after[0].File)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	for name, content := range map[string][]byte{
		"0000000000000000-0000000000000000.wal":        whole[:after[0].Used-100], // within the last record
		"0000000000000001-0000000000000009.wal":        make([]byte, 1<<20),
		"0000000000000002-0000000000000010.wal":        nil,
		"0000000000000000-0000000000000000.wal.broken": whole,
	} {
		if err := os.WriteFile(filepath.Join(other, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := migrate.Segments(other)
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Used >= after[0].Used-100 || got[0].Entries < after[0].Entries-2 || got[1].Used != 0 || got[2].Used != 0 {
		t.Errorf("%+v, and whole %+v", got, after)
	}
}

func TestUntilDropped(t *testing.T) {
	full := migrate.Segment{Entries: 64_000, Used: migrate.SegmentBytes}
	half := migrate.Segment{Entries: 32_000, Used: migrate.SegmentBytes / 2}
	for _, tt := range []struct {
		name string
		all  []migrate.Segment
		i    int
		want migrate.Remaining
	}{
		{"the only one", []migrate.Segment{half}, 0, migrate.Remaining{Bytes: 9 * migrate.SegmentBytes / 2, Entries: 288_001}},
		{"the oldest of three", []migrate.Segment{full, full, half}, 0, migrate.Remaining{Bytes: 5 * migrate.SegmentBytes / 2, Entries: 160_001}},
		{"the latest of three", []migrate.Segment{full, full, half}, 2, migrate.Remaining{Bytes: 9 * migrate.SegmentBytes / 2, Entries: 288_001}},
		{"the next one", []migrate.Segment{full, full, full, full, half}, 0, migrate.Remaining{Bytes: migrate.SegmentBytes / 2, Entries: 32_001}},
		{"one that is kept only by a lock", []migrate.Segment{full, full, full, full, full, half}, 0, migrate.Remaining{}},
		{"one without entries", []migrate.Segment{{}}, 0, migrate.Remaining{Bytes: 5 * migrate.SegmentBytes}},
	} {
		if diff := cmp.Diff(tt.want, migrate.UntilDropped(tt.all, tt.i, 5)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
