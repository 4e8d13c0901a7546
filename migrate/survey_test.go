package migrate_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/migrate"
)

func TestSurvey(t *testing.T) {
	l := newLab(t)
	p := l.process()
	rules := []migrate.Rule{
		{Prefix: "/registry/", Sealer: p.sealer}, {Prefix: prefix}, {Prefix: prefix + "a/", Sealer: p.sealer}, {Prefix: "/registry/none/"},
	}
	e := l.engine(p, true, func(c *migrate.Config) { c.Rules, c.Reserved = rules, "/registry/keyring/" })
	key := l.dek(p)
	for _, at := range []string{"/registry/pods/1", prefix + "1", prefix + "2", prefix + "a/1"} {
		l.put(at, sealed(key, at))
	}
	l.put("/registry/pods/2", "plain")
	l.put(prefix+"a/2", "plain")
	l.put(prefix+"a/3", "")
	l.put("/registry/keyring/dek/x", "reserved")
	l.put("/other", "under no rule")
	l.put(prefix+"moved", sealed(key, "elsewhere"))
	unknown := "\x00es\x01" + string(make([]byte, 60))
	for i := range migrate.MaxNamed + 5 {
		l.put(fmt.Sprintf("%sb/%03d", prefix, i), unknown)
	}
	n := int64(migrate.MaxNamed + 5)
	want := []migrate.RuleSurvey{
		{Prefix: "/registry/", Seals: true, Keys: 2, Sealed: 1, Plaintext: 1},
		{Prefix: prefix, Keys: 3 + n, Sealed: 2, Undecryptable: 1 + n},
		{Prefix: prefix + "a/", Seals: true, Keys: 3, Sealed: 1, Plaintext: 1, Empty: 1},
		{Prefix: "/registry/none/"},
	}
	got, err := e.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[envelope.ID]int64{key.ID(): 5, {}: n}, got.Values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if len(got.Undecryptable) != migrate.MaxNamed || got.Failed() != n+1 || got.Others != 0 || !got.Scanned {
		t.Errorf("%d named, %d failed, %d others", len(got.Undecryptable), got.Failed(), got.Others)
	}
	for i := range want {
		want[i] = migrate.RuleSurvey{Prefix: want[i].Prefix, Seals: want[i].Seals, Keys: want[i].Keys}
	}
	counted, err := e.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, counted.Rules); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if counted.Revision != got.Revision || counted.Scanned {
		t.Errorf("counted at revision %d, want %d", counted.Revision, got.Revision)
	}
}

// TestSurveyWithoutKEK says nothing about values when the KEK does not answer.
func TestSurveyWithoutKEK(t *testing.T) {
	l := newLab(t)
	p := l.process()
	l.put(prefix+"a", sealed(l.dek(p), prefix+"a"))
	other := l.process()
	other.kek.Fail(kek.Unavailable, kek.OpUnwrap)
	e := l.engine(other, true, func(c *migrate.Config) { c.Patience = time.Nanosecond })
	if got, err := e.Survey(t.Context()); err == nil || kek.ClassOf(err) != kek.Unavailable {
		t.Errorf("%+v, %v", got, err)
	}
	third := l.process()
	third.kek.Fail(kek.Denied, kek.OpUnwrap)
	got, err := l.engine(third, true).Survey(t.Context())
	if err != nil || got.Failed() != 1 || kek.ClassOf(got.Undecryptable[0].Err) != kek.Denied || errors.Is(got.Undecryptable[0].Err, migrate.ErrPlaintext) {
		t.Errorf("%+v, %v", got, err)
	}
}
