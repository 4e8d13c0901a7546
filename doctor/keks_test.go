package doctor

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

// vault is a key in a vault, of which a test says everything.
type vault struct {
	properties azure.Properties
	rotates    bool
	err        error
}

func (v vault) Properties(context.Context) (azure.Properties, error) { return v.properties, v.err }
func (v vault) Rotates(context.Context) (bool, error)                { return v.rotates, v.err }

// dated is a KEK whose provider says what time it is.
type dated struct {
	kek.KEK
	off time.Duration
}

func (d dated) Wrap(ctx context.Context, secret []byte) (kek.Wrapping, error) {
	kek.TraceFrom(ctx).Date = time.Now().Add(d.off).Truncate(time.Second)
	return d.KEK.Wrap(ctx, secret)
}

// Each finding is there when there is reason for it, and not otherwise.
func TestKEKs(t *testing.T) {
	key := func(change func(f *kektest.Fake)) func(*Config) {
		return func(p *Config) { change(fake(*p, "k")) }
	}
	inVault := func(v vault, managed bool) func(*Config) {
		return func(p *Config) {
			p.Config.KEKs["k"] = config.KEK{AzureKeyVault: &config.AzureKEK{Managed: managed}}
			p.KEKs["k"] = Key{KEK: kektest.NewFake("k", "1"), Vault: v}
		}
	}
	safe := azure.Properties{Recoverable: true, RecoveryLevel: "Recoverable"}
	with := func(change func(*azure.Properties)) vault {
		p := safe
		change(&p)
		return vault{properties: p}
	}
	for name, r := range map[string]struct {
		change func(*Config)
		level  Level
		texts  []string
	}{
		"denied":           {key(func(f *kektest.Fake) { f.Fail(kek.Denied, kek.OpWrap) }), Problem, []string{"k", "does not wrap", "right to wrap"}},
		"disabled":         {key(func(f *kektest.Fake) { f.Fail(kek.Disabled, kek.OpWrap) }), Problem, []string{"does not wrap", "enable the key"}},
		"not found":        {key(func(f *kektest.Fake) { f.Fail(kek.NotFound, kek.OpWrap) }), Problem, []string{"does not wrap", "recover the key"}},
		"throttled":        {key(func(f *kektest.Fake) { f.Fail(kek.Throttled, kek.OpWrap) }), Problem, []string{"does not wrap", "who else uses"}},
		"unavailable":      {key(func(f *kektest.Fake) { f.Fail(kek.Unavailable, kek.OpWrap) }), Problem, []string{"does not wrap", "network"}},
		"does not unwrap":  {key(func(f *kektest.Fake) { f.Fail(kek.Denied, kek.OpUnwrap) }), Problem, []string{"wraps and does not unwrap"}},
		"unwraps another":  {key(func(f *kektest.Fake) { f.Swap(func([]byte) []byte { return bytes.Repeat([]byte{1}, kek.DEKSize) }) }), Problem, []string{"not what was wrapped", "another key"}},
		"cannot be opened": {func(p *Config) { p.KEKs["k"] = Key{Err: errTest} }, Problem, []string{"cannot be opened", "the test said so"}},
		"no audit":         {func(p *Config) { p.AuditErr = errTest }, Unknown, []string{"not used"}},
		"no rule":          {func(p *Config) { p.Config.Rules[0].KEK = "r" }, OK, []string{"k", "no rule names it"}},
		"no rule, denied": {func(p *Config) {
			p.Config.Rules[0].KEK = "r"
			fake(*p, "k").Fail(kek.Disabled, kek.OpWrap)
		}, Warning, []string{"k", "does not wrap"}},
		"protected":           {inVault(vault{properties: safe}, false), OK, []string{"soft delete and purge protection are on"}},
		"purge protection":    {inVault(with(func(p *azure.Properties) { p.Purgeable = true }), false), Warning, []string{"purge protection is off", "az keyvault update"}},
		"soft delete":         {inVault(with(func(p *azure.Properties) { p.Recoverable = false }), false), Problem, []string{"soft delete is off"}},
		"expires soon":        {inVault(with(func(p *azure.Properties) { p.Expires = time.Now().Add(10 * 24 * time.Hour) }), false), Warning, []string{"expires in 9 days"}},
		"expires":             {inVault(with(func(p *azure.Properties) { p.Expires = months() }), false), OK, []string{"expires in 199 days"}},
		"properties unread":   {inVault(vault{err: &kek.Error{Class: kek.Denied}}, false), Unknown, []string{"properties cannot be read"}},
		"managed, none yet":   {inVault(vault{err: &kek.Error{Class: kek.NotFound}}, true), Warning, []string{"managed, and there is no such key yet"}},
		"managed":             {inVault(vault{properties: safe, rotates: true}, true), OK, []string{"managed, and rotated"}},
		"managed, not yet so": {inVault(vault{properties: safe}, true), OK, []string{"managed, and has no rotation policy yet"}},
		"another time":        {func(p *Config) { p.KEKs["k"] = Key{KEK: dated{kektest.NewFake("k", "1"), time.Hour}} }, Problem, []string{"clock of k", "ahead of"}},
		"the same time":       {func(p *Config) { p.KEKs["k"] = Key{KEK: dated{kektest.NewFake("k", "1"), 0}} }, OK, []string{"clock of k", "to a second"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, dir, settings(t, dir, "http://10.0.0.4:2379"))
			check := func(d *doctor) check { return d.keks }
			before := run(t, p, check)
			wants(t, before, KEKs, OK, "k", "wraps and unwraps", `version "1"`)
			wants(t, before, KEKs, OK, "k", "keep a copy of the file apart")
			wantsNot(t, before, KEKs, r.level, r.texts...)
			r.change(&p)
			found := run(t, p, check)
			wants(t, found, KEKs, r.level, r.texts...)
			wants(t, found, KEKs, map[bool]Level{false: OK, true: Unknown}[p.AuditErr != nil], "r") // whatever is wrong with the other
		})
	}
}
