package dek_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/kek"
)

func TestStatus(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.deks(2)
		m := w.manager()
		w.wrapBy(m, main)
		w.main.Rotate("2")
		w.deks(1)
		versions := func() (current, older dek.VersionStatus) {
			t.Helper()
			s, err := m.Status(t.Context())
			if err != nil || len(s.Versions) != 3 {
				t.Fatalf("Status: got %+v, %v", s, err)
			}
			return s.Versions[0], s.Versions[1]
		}
		current, older := versions()
		if current.Records != 1 || current.Safe() || older.Records != 2 || older.Needed != 2 || older.Safe() || !older.Until.IsZero() {
			t.Errorf("before: got %+v and %+v", current, older)
		}
		w.pass(time.Hour)
		at := time.Now()
		if _, err := m.Rotate(t.Context(), dek.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		current, older = versions()
		if current.Records != 3 || current.Safe() || older.Records != 0 || !older.Safe() || older.Until.Before(at.Truncate(time.Second)) {
			t.Errorf("after: got %+v and %+v", current, older)
		}
		w.store.Put(dektest.ID(1), dektest.Record(dektest.ID(1), 1)) // of another keyring
		if _, older = versions(); older.Safe() {
			t.Errorf("with a record that is unknown: got %+v", older)
		}
	})
}

// TestSafeAfterTheLag has a version called safe only when no process can wrap by it any
// more since it has not heard of the next one.
func TestSafeAfterTheLag(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := w.deks(1)[0]
		m := w.manager()
		w.wrapBy(m, main)
		w.main.Rotate("2")
		if _, err := m.Rotate(t.Context(), dek.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wantWrappers(key, "main:2")
		w.pass(dek.DefaultRotateLag - time.Minute)
		older := w.version(m, main, "1")
		if older.Safe() || older.Needed != 0 || !strings.Contains(older.Because[0], "have not heard") {
			t.Errorf("before the lag is over: got %+v", older)
		}
		w.pass(time.Minute)
		if older := w.version(m, main, "1"); !older.Safe() {
			t.Errorf("after it: got %+v", older)
		}
	})
}

// version returns what Status says about a version of a KEK.
func (w *world) version(m *dek.Manager, name, version string) dek.VersionStatus {
	w.t.Helper()
	s, err := m.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range s.Versions {
		if v.KEK == name && v.Version == version {
			return v
		}
	}
	w.t.Fatalf("Status says nothing about version %s of %s: %+v", version, name, s)
	return dek.VersionStatus{}
}

// TestSafeIsProved has a version in a record whose other wrapping is no good: it is not
// called safe before that one gives the DEK.
func TestSafeIsProved(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(w *world, r *dek.Record)
		safe  bool
	}{
		"good":    {func(*world, *dek.Record) {}, true},
		"made up": {func(w *world, r *dek.Record) { r.Wrappings[1].Ciphertext = []byte("made up") }, false},
		"of another DEK": {func(w *world, r *dek.Record) {
			r.Wrappings[1] = w.wrappedBy(recovery, w.recovery, make([]byte, kek.DEKSize))
		}, false},
		"switched off":    {func(w *world, r *dek.Record) { w.recovery.FailVersion("1", kek.Disabled) }, false},
		"does not answer": {func(w *world, r *dek.Record) { w.recovery.Fail(kek.Unavailable, kek.OpUnwrap) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				key := w.deks(1, recovery)[0]
				m := w.manager()
				w.wrapBy(m, recovery) // so that no rule names the other KEK
				r := w.record(key.ID())
				test.spoil(w, r)
				w.put(key.ID(), r)
				got := w.version(m, main, "1")
				if got.Safe() != test.safe || (got.Needed == 0) != test.safe {
					t.Errorf("got %+v, want safe: %v", got, test.safe)
				}
			})
		})
	}
}

// TestStatusUnwrapsNothingInVain counts what Status asks of KEKs when all records are as
// they should be.
func TestStatusUnwrapsNothingInVain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.deks(3, recovery)
		m := w.manager()
		w.wrapBy(m, main, recovery)
		before := w.ops()
		if _, err := m.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := w.ops() - before + w.recovery.Calls(kek.OpUnwrap) - 3; n != 0 { // each was proved once
			t.Errorf("%d key operations, want none", n)
		}
	})
}

// TestUnopened has the key of a KEK replaced by another one, as when somebody makes the key
// file anew: what only the old one wraps cannot be opened any more.
func TestUnopened(t *testing.T) {
	for name, test := range map[string]struct {
		recovery []string
		fail     func(w *world)
		want     int
	}{
		"rotated":             {nil, func(*world) {}, 0},
		"replaced":            {nil, func(w *world) { w.main.FailVersion("1", kek.NotFound) }, 2},
		"with a recovery KEK": {[]string{recovery}, func(w *world) { w.main.FailVersion("1", kek.NotFound) }, 0},
		"does not answer":     {nil, func(w *world) { w.main.Fail(kek.Unavailable, kek.OpUnwrap) }, 0},
		"one does not answer, the other denies": {[]string{recovery}, func(w *world) {
			w.main.Fail(kek.Unavailable, kek.OpUnwrap)
			w.recovery.Fail(kek.Denied)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.deks(2, test.recovery...)
				m := w.manager()
				w.wrapBy(m, main, test.recovery...)
				w.main.Rotate("2")
				w.deks(1, test.recovery...)
				test.fail(w)
				s, err := m.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(s.Unopened) != test.want || test.want > 0 && kek.ClassOf(s.Unopened[0].Err) != kek.NotFound {
					t.Errorf("got %+v, want %d", s.Unopened, test.want)
				}
			})
		})
	}
}

// TestLeftover lists the KEKs that wrap records and that no rule names.
func TestLeftover(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.deks(2, recovery)
		w.deks(1)
		m := w.manager()
		for _, test := range []struct {
			kek      string
			recovery []string
			want     []dek.LeftoverKEK
		}{
			{main, []string{recovery}, nil},
			{main, nil, []dek.LeftoverKEK{{KEK: recovery, Records: 2}}},
			{recovery, nil, []dek.LeftoverKEK{{KEK: main, Records: 3, Alone: 1}}},
		} {
			w.wrapBy(m, test.kek, test.recovery...)
			s, err := m.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, s.Leftover); diff != "" {
				t.Errorf("rules with %s and %v: left over differs (-want +got):\n%s", test.kek, test.recovery, diff)
			}
		}
	})
}
