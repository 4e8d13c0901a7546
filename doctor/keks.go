package doctor

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
)

// Key is a KEK of the configuration.
type Key struct {
	// KEK is opened, and its uses are audited if they are to be; nil if Err says why it
	// cannot be opened. It makes no key that is not there.
	KEK kek.KEK
	Err error
	// Vault is the same KEK if it is in Key Vault, else nil.
	Vault Vault
}

// Vault is what can be asked of a key in Key Vault, as *azure.KEK does.
type Vault interface {
	Properties(ctx context.Context) (azure.Properties, error)
	Rotates(ctx context.Context) (bool, error)
}

// keks has each KEK wrap and unwrap, all at the same time.
func (d *doctor) keks(ctx context.Context, n *notes) {
	names := slices.Sorted(maps.Keys(d.KEKs))
	written, failed := make([]notes, len(names)), make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { failed[i] = d.kek(ctx, &written[i], name) })
	}
	all.Wait()
	d.silent = map[string]error{}
	for i, name := range names {
		n.findings = append(n.findings, written[i].findings...)
		if kek.ClassOf(failed[i]) == kek.Unavailable {
			d.silent[name] = failed[i]
		}
	}
}

// kek looks at one KEK, and returns why it cannot be used.
func (d *doctor) kek(ctx context.Context, n *notes, name string) error {
	c, k := d.Config.Config.KEKs[name], d.KEKs[name]
	used := d.used(name)
	if !used {
		n.add(KEKs, OK, name, "keep it while `etcdseal status` says that records need it", "no rule names it: it only opens what it wrapped")
	}
	switch {
	case k.Err != nil:
		n.add(KEKs, Problem, name, "mend what is named", "cannot be opened, so that etcdseal does not start: %v", k.Err)
		return k.Err
	case d.AuditErr != nil:
		n.add(KEKs, Unknown, name, "see to the audit log, and run this again", "not used, since no line could be written about it")
		return d.AuditErr
	}
	err := d.prove(ctx, n, name, used)
	if k.Vault != nil {
		d.vault(ctx, n, name, k.Vault, c.AzureKeyVault.Managed)
	}
	if c.Local != nil {
		n.add(KEKs, OK, name, "keep a copy of the file apart from this machine and from etcd's backups: without it nothing that only it wraps can be read again", "a file, %s, of a mode that etcdseal accepts", c.Local.KeyFile)
	}
	return err
}

// used says whether a rule names a KEK.
func (d *doctor) used(name string) bool {
	return slices.ContainsFunc(d.Config.Config.Rules, func(r config.Rule) bool {
		return r.KEK == name || slices.Contains(r.RecoveryKEKs, name)
	})
}

// prove has a KEK wrap and unwrap random bytes, which are no DEK.
func (d *doctor) prove(ctx context.Context, n *notes, name string, used bool) error {
	secret := make([]byte, kek.DEKSize)
	_, _ = rand.Read(secret) // never fails: the program ends instead
	defer clear(secret)
	w, told, err := d.wrap(ctx, name, secret)
	if err != nil {
		level := Problem
		if !used {
			level = Warning // one that has expired still unwraps
		}
		n.add(KEKs, level, name, advice(err), "does not wrap: %v", err)
		return err
	}
	if err := d.unwrap(ctx, name, w, secret); err != nil {
		n.add(KEKs, Problem, name, advice(err), "wraps and does not unwrap: %v", err)
		return err
	}
	took := d.Now().Sub(told.before)
	n.add(KEKs, OK, name, "", "wraps and unwraps (random bytes) by version %.64q, in %s", w.Version, took.Round(time.Millisecond))
	if !told.date.IsZero() {
		told.compare(n, KEKs, "clock of "+name, "Date of the vault's answer")
	}
	return nil
}

// wrap wraps, and says what time it was at the provider's, if that told.
func (d *doctor) wrap(ctx context.Context, name string, secret []byte) (w kek.Wrapping, told reading, err error) {
	ctx, cancel := context.WithTimeout(kek.WithWhy(ctx, kek.WhyHealthCheck), d.KEKTimeout)
	defer cancel()
	var trace kek.Trace
	told.before = d.Now()
	w, err = d.KEKs[name].KEK.Wrap(kek.WithTrace(ctx, &trace), secret)
	told.date, told.after = trace.Date, d.Now()
	return w, told, err
}

// unwrap unwraps and compares.
func (d *doctor) unwrap(ctx context.Context, name string, w kek.Wrapping, secret []byte) error {
	ctx, cancel := context.WithTimeout(kek.WithWhy(ctx, kek.WhyHealthCheck), d.KEKTimeout)
	defer cancel()
	got, err := d.KEKs[name].KEK.Unwrap(ctx, w)
	defer clear(got)
	if err == nil && subtle.ConstantTimeCompare(got, secret) != 1 {
		return &kek.Error{Class: kek.Corrupt, Op: kek.OpUnwrap, KEK: name, Version: w.Version, Err: errors.New("what came back is not what was wrapped")}
	}
	return err
}

// advice says what to do about a KEK's failure by its class; the error has the provider's
// own hint.
func advice(err error) string {
	switch kek.ClassOf(err) {
	case kek.Denied:
		return "give the identity the right to wrap and to unwrap with this key"
	case kek.Disabled:
		return "enable the key's latest version, or rotate the key"
	case kek.NotFound:
		return "see that the name is right; recover the key if it was deleted"
	case kek.Throttled:
		return "see who else uses the vault, and run this again"
	case kek.Corrupt:
		return "use another key: this one does not give back what it is given"
	}
	return "see that the network, the login and the provider are well, and run this again"
}

// vault looks at what a vault says of its key.
func (d *doctor) vault(ctx context.Context, n *notes, name string, v Vault, managed bool) {
	ctx, cancel := context.WithTimeout(ctx, d.KEKTimeout)
	defer cancel()
	p, err := v.Properties(ctx)
	switch {
	case managed && kek.ClassOf(err) == kek.NotFound:
		n.add(KEKs, Warning, name, "let etcdseal make it at its first start, then run this again", "managed, and there is no such key yet")
		return
	case err != nil:
		n.add(KEKs, Unknown, name, advice(err), "its properties cannot be read: %v", err)
		return
	}
	d.protection(n, name, p)
	if managed {
		d.rotation(ctx, n, name, v)
	}
}

// protection looks at how well a key is kept.
func (d *doctor) protection(n *notes, name string, p azure.Properties) {
	level, found, do := OK, []string{}, ""
	if p.Purgeable {
		level, do = Warning, "turn it on: az keyvault update --enable-purge-protection true"
		found = append(found, "purge protection is off, so that whoever may purge can destroy the key for good, and everything sealed under it")
	}
	if !p.Recoverable {
		level, do = Problem, "use a vault with soft delete and purge protection"
		found = append(found, "soft delete is off: a deleted key is gone at once")
	}
	if len(found) == 0 {
		found = append(found, "soft delete and purge protection are on")
	}
	n.add(KEKs, level, name, do, "%s (recovery level %s)", strings.Join(found, "; "), p.RecoveryLevel)
	left := p.Expires.Sub(d.Now())
	switch {
	case p.Unusable != nil: // which wrapping has said
	case !p.Expires.IsZero() && left < expiryWarning:
		n.add(KEKs, Warning, name, "rotate the key before, or give it a rotation policy", "the latest version expires in %s and only unwraps from then on", days(left))
	case !p.Expires.IsZero():
		n.add(KEKs, OK, name, "", "the latest version expires in %s", days(left))
	}
}

// rotation looks at whether the vault rotates a managed key.
func (d *doctor) rotation(ctx context.Context, n *notes, name string, v Vault) {
	switch rotates, err := v.Rotates(ctx); {
	case err != nil:
		n.add(KEKs, Warning, name, "give the identity the role Key Vault Crypto Officer, or make the policy yourself", "managed, and its rotation policy cannot be seen: %v", err)
	case !rotates:
		n.add(KEKs, OK, name, "", "managed, and has no rotation policy yet: etcdseal gives it one at its start")
	default:
		n.add(KEKs, OK, name, "", "managed, and rotated by the vault")
	}
}
