package doctor

import (
	"bytes"
	"testing"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// seal seals a value, as a proxy of a keyring does with some KEKs, the first of which its
// rule names.
func (l *lab) seal(p Config, key string, authKey []byte, kekName string, recovery ...string) {
	l.Helper()
	keks := map[string]kek.KEK{}
	for _, name := range append(recovery, kekName) {
		keks[name] = kektest.NewFake(name, "1")
	}
	m, err := dek.New(dek.Config{Store: p.Store, Keyring: p.Config.Keyring.Name, KEKs: keks, AuthKey: authKey})
	if err != nil {
		l.Fatal(err)
	}
	defer m.Close()
	sealer, err := m.Sealer(kekName, recovery)
	if err != nil {
		l.Fatal(err)
	}
	k, err := sealer.Key(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	l.put(key, string(k.Seal(nil, []byte(key), []byte("hunter2"))))
}

// Each finding about the keyring is there when there is reason for it, and not otherwise.
func TestKeyring(t *testing.T) {
	record := func(l *lab, value string) { l.put("/etcdseal/dek/00112233445566778899aabbccddeeff", value) }
	for name, r := range map[string]struct {
		spoil func(l *lab, p *Config)
		level Level
		texts []string
	}{
		"another keyring's": {func(l *lab, p *Config) {
			l.seal(l.patient(func(c *config.Config) { c.Keyring.Name = "other" }), "/x", nil, "k", "r")
		}, Problem, []string{"1 record is of another keyring", `"other"`}},
		"unreadable record": {func(l *lab, p *Config) { record(l, "{}") }, Problem, []string{"not to be read", "00112233"}},
		"value without its record": {func(l *lab, p *Config) { l.put(prefix+"lost", sealed) }, Problem,
			[]string{"without a record", "07070707070707070707070707070707", prefix + "lost"}},
		"wrapping missing": {func(l *lab, p *Config) { l.seal(*p, prefix+"one", nil, "k") }, Warning, []string{"not wrapped by KEK r", "etcdseal rotate"}},
		"no KEK":           {func(l *lab, p *Config) { l.seal(*p, "/x", nil, "gone") }, Problem, []string{"wrapped by no KEK", "under keks"}},
		"another authentication key": {func(l *lab, p *Config) { p.AuthKey = bytes.Repeat([]byte{1}, 32) }, Problem,
			[]string{"another DEK", "keyring.authKeyFile"}},
		"KEKs deny": {func(l *lab, p *Config) {
			fake(*p, "k").FailVersion("1", kek.Denied)
			fake(*p, "r").FailVersion("1", kek.Denied)
		}, Problem, []string{"opening DEK", "denied"}},
		"KEKs are not heard":    {func(l *lab, p *Config) { p.KEKs["k"], p.KEKs["r"] = Key{Err: errTest}, Key{Err: errTest} }, Unknown, []string{"opening DEK", "unavailable"}},
		"store cannot be had":   {func(l *lab, p *Config) { p.StoreErr = errTest }, Problem, []string{"cannot be opened", "the test said so"}},
		"store does not answer": {func(l *lab, p *Config) { _ = p.Store.Close() }, Unknown, []string{"cannot be read"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			p := l.patient()
			look := func() []Finding {
				d := &doctor{Config: p}
				d.complete()
				d.members(t.Context(), &notes{})
				d.keks(t.Context(), &notes{})
				var n notes
				d.contents(t.Context(), &n)
				return n.findings
			}
			wants(t, look(), Keyring, OK, "0 records are", "set keyring.authKeyFile now")
			l.seal(p, prefix+"good", nil, "k", "r")
			before := look()
			wants(t, before, Keyring, OK, "1 record is of this keyring")
			wants(t, before, Keyring, OK, "all are wrapped")
			wants(t, before, Keyring, OK, "1 of 1 data key unwrapped")
			wantsNot(t, before, Keyring, OK, "set keyring.authKeyFile now")
			wantsNot(t, before, Keyring, r.level, r.texts...)
			r.spoil(l, &p)
			revision := l.server.Server.KV().Rev()
			wants(t, look(), Keyring, r.level, r.texts...)
			if now := l.server.Server.KV().Rev(); now != revision {
				t.Errorf("the revision was %d and is %d", revision, now)
			}
		})
	}
}

// No more data keys are unwrapped than it takes.
func TestKeyringOpensFew(t *testing.T) {
	l := newLab(t)
	p := l.patient()
	for range 2 * maxOpened {
		l.seal(p, prefix+"a", nil, "k", "r")
	}
	found := Examine(t.Context(), p)
	wants(t, found, Keyring, OK, "5 of 10 data keys unwrapped")
	// Of k's fake: one for the proof and one for each data key.
	if n := fake(p, "k").Calls(kek.OpUnwrap); n > 1+maxOpened {
		t.Errorf("%d unwraps", n)
	}
}

// What the keyring is asked through writes nothing.
func TestReadOnly(t *testing.T) {
	if _, err := (readOnly{}).Create(t.Context(), [16]byte{}, nil); err == nil {
		t.Error("a record was made")
	}
	if _, err := (readOnly{}).Update(t.Context(), [16]byte{}, nil, 1); err == nil {
		t.Error("a record was changed")
	}
}
