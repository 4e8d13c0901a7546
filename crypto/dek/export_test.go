package dek_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// exported is the export of a store with records, one of which is not JSON and one empty,
// and a tombstone.
func exported(t testing.TB) *dek.Export {
	t.Helper()
	store := dektest.NewMemory()
	store.Put(dektest.ID(2), vector(t, "record-escapes.json"))
	store.Put(dektest.ID(1), []byte("no JSON: \xff\x00 <&>  "))
	store.Put(dektest.ID(4), nil)
	revision, err := store.Create(t.Context(), dektest.ID(3), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Bury(t.Context(), dektest.ID(3), []byte("{}"), revision); err != nil {
		t.Fatal(err)
	}
	listing, err := dek.List(t.Context(), store, keyring)
	if err != nil {
		t.Fatal(err)
	}
	return listing.Export(time.Date(2026, 11, 28, 4, 0, 0, 5, time.UTC))
}

func TestExport(t *testing.T) {
	e := exported(t)
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := dek.ParseExport(data)
	if err != nil {
		t.Fatal(err)
	}
	if e.Records[2].Data == nil {
		e.Records[2].Data = []byte{} // an empty record has no other spelling
	}
	if diff := cmp.Diff(e, again); diff != "" {
		t.Errorf("parsed (-want +got):\n%s", diff)
	}
	var ids []envelope.ID
	for _, r := range again.Records {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]envelope.ID{dektest.ID(1), dektest.ID(2), dektest.ID(4)}, ids); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		t.Fatal(err)
	}
	if _, err := dek.ParseExport(compact.Bytes()); err != nil {
		t.Errorf("without white space: %v", err)
	}
}

func TestParseExportRefuses(t *testing.T) {
	data, err := exported(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	tests := []struct{ name, data, want string }{
		{"nothing", "", "not a JSON object"},
		{"no JSON", "hello", "not a JSON object"},
		{"no version", "{}", "not a JSON object with a version"},
		{"an array", "[1]", "not a JSON object"},
		{"another version", strings.Replace(good, `"version": 1`, `"version": 2`, 1), "format version 2 is unknown"},
		{"a member too many", strings.Replace(good, `"keyring"`, `"more": 1, "keyring"`, 1), "exact form"},
		{"a member twice", strings.Replace(good, `"keyring"`, `"keyring": "x", "keyring"`, 1), "exact form"},
		{"a member of the wrong type", strings.Replace(good, `"keyring": "test"`, `"keyring": 7`, 1), "wrong type"},
		{"no keyring", strings.Replace(good, `"keyring": "test"`, `"keyring": ""`, 1), "keyring is not"},
		{"something after it", good + "{}", "not a JSON object"},
		{"cut off", good[:len(good)/2], "not a JSON object"},
		{"an id that is none", strings.Replace(good, dektest.ID(1).String(), "dd01", 1), "DEK id"},
		{"out of order", strings.Replace(good, dektest.ID(1).String(), dektest.ID(9).String(), 1), "order of their ids"},
		{"one twice", strings.Replace(good, dektest.ID(1).String(), dektest.ID(2).String(), 1), "order of their ids"},
		{"a record that is no Base64", strings.Replace(good, `"record": ""`, `"record": "*"`, 1), "wrong type"},
		{"null for a record", strings.Replace(good, `"record": ""`, `"record": null`, 1), "exact form"},
		{"a time with a fraction", strings.Replace(good, "04:00:00Z", "04:00:00.5Z", 1), "exported is not"},
		{"a cluster that is no number", strings.Replace(good, `"cluster": "0"`, `"cluster": "x"`, 1), "hexadecimal"},
		{"a cluster in capitals", strings.Replace(good, `"cluster": "0"`, `"cluster": "A"`, 1), "exact form"},
		{"a negative revision", strings.Replace(good, `"revision": 1,`, `"revision": -1,`, 1), "negative"},
	}
	for _, tt := range tests {
		if tt.data == good {
			t.Errorf("%s: the test changes nothing", tt.name)
		}
		if _, err := dek.ParseExport([]byte(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, err := dek.ParseExport([]byte(strings.Replace(good, `"version": 1`, `"version": 2`, 1))); !isNewer(err) {
		t.Errorf("another version: %v, want an ExportVersionError", err)
	}
}

func isNewer(err error) bool {
	newer, ok := errors.AsType[*dek.ExportVersionError](err)
	return ok && newer.Version == 2
}

func FuzzParseExport(f *testing.F) {
	data, err := exported(f).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := dek.ParseExport(data)
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil {
			t.Fatalf("parsed, and not encoded again: %v", err)
		}
		twice, err := dek.ParseExport(again)
		if err != nil || !cmp.Equal(e, twice) {
			t.Errorf("parsed, encoded and parsed again as %+v, %v", twice, err)
		}
	})
}

// export returns what is in the store.
func (w *world) export() *dek.Export {
	w.t.Helper()
	listing, err := dek.List(w.t.Context(), w.store, keyring)
	if err != nil {
		w.t.Fatal(err)
	}
	return listing.Export(time.Now())
}

// imports has a new process import, and returns what became of the one record.
func (w *world) imports(e *dek.Export, o dek.ImportOptions, edits ...func(*dek.Config)) dek.Imported {
	w.t.Helper()
	done, err := w.manager(edits...).Import(w.t.Context(), e, o)
	if err != nil || len(done) != 1 {
		w.t.Fatalf("Import: %v, %v", done, err)
	}
	return done[0]
}

func TestImport(t *testing.T) {
	alone := func(c *dek.Config) { delete(c.KEKs, main) } // has the recovery KEK only
	tests := []struct {
		name    string
		spoil   func(w *world, id envelope.ID) // what happens after the export
		options dek.ImportOptions
		edit    func(*dek.Config)
		action  dek.ImportAction
		err     error
		same    bool // the record is afterwards as it was exported
	}{
		{name: "it is there", spoil: func(*world, envelope.ID) {}, action: dek.ImportSame, same: true},
		{name: "it is lost", spoil: func(w *world, id envelope.ID) { w.store.Remove(id) }, action: dek.ImportCreated, same: true},
		{name: "it is lost, by the other KEK", spoil: func(w *world, id envelope.ID) { w.store.Remove(id) }, edit: alone, action: dek.ImportCreated, same: true},
		{name: "it was rewrapped since", spoil: func(w *world, id envelope.ID) {
			r := *w.record(id)
			r.Wrappings = r.Wrappings[1:]
			w.put(id, &r)
		}, action: dek.ImportKept},
		{name: "its wrappings were replaced by others that do not give the DEK", spoil: func(w *world, id envelope.ID) {
			r := *w.record(id)
			r.Wrappings = []dek.Wrapping{{KEK: main, Version: "1", Algorithm: r.Wrappings[0].Algorithm, Ciphertext: []byte("useless")}}
			w.put(id, &r)
		}, action: dek.ImportMerged},
		{name: "something else is in its place", spoil: func(w *world, id envelope.ID) { w.store.Put(id, []byte("junk")) }, action: dek.ImportRefused, err: dek.ErrBadRecord},
		{name: "a newer record is in its place", spoil: func(w *world, id envelope.ID) { w.store.Put(id, []byte(`{"version":2}`)) }, action: dek.ImportRefused},
		{name: "a tombstone is", spoil: (*world).buryRecord, action: dek.ImportRefused, err: dek.ErrTombstoned},
		{name: "its KEKs are not configured", spoil: func(w *world, id envelope.ID) { w.store.Remove(id) }, edit: func(c *dek.Config) { clear(c.KEKs) }, action: dek.ImportRefused, err: dek.ErrNoKEK},
		{name: "the authentication key is another", spoil: func(w *world, id envelope.ID) { w.store.Remove(id) }, edit: func(c *dek.Config) { c.AuthKey = []byte("another") }, action: dek.ImportRefused, err: dek.ErrMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				id := w.seal(w.sealer(w.manager(), recovery)).ID()
				e := w.export()
				tt.spoil(w, id)
				spoiled := w.store.Records()
				edit := tt.edit
				if edit == nil {
					edit = func(*dek.Config) {}
				}
				dry := tt.options
				dry.DryRun = true
				if got := w.imports(e, dry, edit); got.Action != tt.action {
					t.Errorf("dry run: %s (%v), want %s", got.Action, got.Err, tt.action)
				}
				if diff := cmp.Diff(spoiled, w.store.Records()); diff != "" {
					t.Fatalf("a dry run changed the store:\n%s", diff)
				}
				got := w.imports(e, tt.options, edit)
				if got.Action != tt.action || tt.err != nil && !errors.Is(got.Err, tt.err) || (got.Err == nil) == (tt.action == dek.ImportRefused) {
					t.Errorf("%s (%v), want %s (%v)", got.Action, got.Err, tt.action, tt.err)
				}
				now := w.store.Records()
				if tt.same && (len(now) != 1 || !bytes.Equal(now[0].Data, e.Records[0].Data)) {
					t.Error("the record is not as it was exported")
				}
				if tt.action == dek.ImportRefused && !cmp.Equal(spoiled, now) {
					t.Error("what was refused changed the store")
				}
				if tt.action == dek.ImportRefused {
					return
				}
				if _, err := w.manager(edit).OpenKey(t.Context(), id); err != nil {
					t.Errorf("opening afterwards: %v", err)
				}
			})
		})
	}
}

func (w *world) buryRecord(id envelope.ID) { w.bury(id) }

// TestImportMerges keeps the wrappings that are there.
func TestImportMerges(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.seal(w.sealer(w.manager())).ID()
		e := w.export()
		r := *w.record(id)
		theirs := dek.Wrapping{KEK: "theirs", Version: "1", Algorithm: "x", Ciphertext: []byte("of another process")}
		mine := r.Wrappings[0]
		r.Wrappings = []dek.Wrapping{theirs}
		w.put(id, &r)
		if got := w.imports(e, dek.ImportOptions{}); got.Action != dek.ImportMerged {
			t.Errorf("%s: %v", got.Action, got.Err)
		}
		if diff := cmp.Diff([]dek.Wrapping{mine, theirs}, w.record(id).Wrappings); diff != "" {
			t.Errorf("wrappings (-want +got):\n%s", diff)
		}
	})
}

// TestImportUndo puts a record back in the place of its tombstone, when a person says so,
// and processes that run open by it and do not seal with it.
func TestImportUndo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.running()
		s := w.sealer(m)
		id := w.seal(s).ID()
		other, _ := w.running()
		e := w.export()
		w.bury(id)
		w.pass(time.Second)
		if _, err := other.OpenKey(t.Context(), id); !errors.Is(err, dek.ErrTombstoned) {
			t.Fatalf("while there is a tombstone: %v", err)
		}
		var audited []dek.Event
		undo := dek.ImportOptions{Undo: []envelope.ID{id}}
		if got := w.imports(e, undo, func(c *dek.Config) {
			c.Auditor = auditor(func(ev dek.Event) error { audited = append(audited, ev); return nil })
		}); got.Action != dek.ImportExhumed {
			t.Fatalf("%s: %v", got.Action, got.Err)
		}
		want := []dek.Event{{Kind: dek.EventImport, DEK: id, KEK: main, Version: "1", Why: "undo gc"}}
		if diff := cmp.Diff(want, audited); diff != "" {
			t.Errorf("written down (-want +got):\n%s", diff)
		}
		w.pass(10 * time.Second) // what could not be opened is refused for a moment
		if _, err := other.OpenKey(t.Context(), id); err != nil {
			t.Errorf("after it was put back: %v", err)
		}
		if w.seal(s).ID() == id {
			t.Error("it is sealed with again")
		}
		_, err := w.manager().Import(t.Context(), e, dek.ImportOptions{Undo: []envelope.ID{dektest.ID(1)}})
		if !errors.Is(err, dek.ErrNotExported) {
			t.Errorf("a DEK that is not in the export: %v", err)
		}
	})
}

// auditor makes a function an Auditor.
type auditor func(dek.Event) error

func (a auditor) Audit(e dek.Event) error { return a(e) }

// TestImportNeedsTheAuditLog puts nothing in that cannot be written down.
func TestImportNeedsTheAuditLog(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.seal(w.sealer(w.manager())).ID()
		e := w.export()
		w.store.Remove(id)
		full := errors.New("the disk is full")
		got := w.imports(e, dek.ImportOptions{}, func(c *dek.Config) { c.Auditor = auditor(func(dek.Event) error { return full }) })
		if got.Action != dek.ImportRefused || !errors.Is(got.Err, full) || len(w.store.Records()) != 0 {
			t.Errorf("%s: %v, and %d records", got.Action, got.Err, len(w.store.Records()))
		}
	})
}

// TestImportOfOthers refuses an export of another keyring, and a record of one.
func TestImportOfOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.seal(w.sealer(w.manager()))
		e := w.export()
		other := func(c *dek.Config) { c.Keyring = "other"; c.Store = dektest.NewMemory() }
		if _, err := w.manager(other).Import(t.Context(), e, dek.ImportOptions{}); !errors.Is(err, dek.ErrAnotherKeyring) {
			t.Errorf("an export of another keyring: %v", err)
		}
		forged := *e
		forged.Keyring = "other"
		if got := w.imports(&forged, dek.ImportOptions{}, other); got.Action != dek.ImportRefused || !errors.Is(got.Err, dek.ErrBadRecord) {
			t.Errorf("a record of another keyring: %s, %v", got.Action, got.Err)
		}
	})
}

// TestImportRace has many import at once: one creates the record, the others find it.
func TestImportRace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.seal(w.sealer(w.manager())).ID()
		e := w.export()
		w.store.Remove(id)
		ends := make(chan dek.ImportAction)
		for range 8 {
			m := w.manager()
			go func() {
				done, err := m.Import(t.Context(), e, dek.ImportOptions{})
				if err != nil || len(done) != 1 {
					t.Errorf("Import: %v, %v", done, err)
					ends <- ""
					return
				}
				ends <- done[0].Action
			}()
		}
		var got []dek.ImportAction
		for range 8 {
			got = append(got, <-ends)
		}
		slices.Sort(got)
		want := append([]dek.ImportAction{dek.ImportCreated}, slices.Repeat([]dek.ImportAction{dek.ImportSame}, 7)...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("actions (-want +got):\n%s", diff)
		}
	})
}
