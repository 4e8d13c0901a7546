package azure_test

import (
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

func managed(c *azure.Config) { c.Managed = &azure.Managed{KeySize: 2048} }

// A managed key is made when it is not there, gets a rotation policy, and is
// followed.
func TestManagedKeyIsMade(t *testing.T) {
	for _, r := range []struct{ host, kty, algorithm string }{
		{host, "RSA", azure.AlgorithmRSA}, {"prod.managedhsm.azure.net", "oct-HSM", azure.AlgorithmAES},
	} {
		inBubble(t, func(t *testing.T) {
			l := newLabAt(t, emulator.VaultConfig{Host: r.host, PurgeProtection: true}, "")
			k := l.open(t, managed)
			w := must(t, k)
			opens(t, k, w)
			if w.Algorithm != r.algorithm || w.Version != l.vault.Current("etcd") {
				t.Errorf("%v", w)
			}
			if got := l.vault.Policy("etcd"); got != "P90D" {
				t.Errorf("the policy rotates after %q", got)
			}
			if !strings.Contains(l.log.String(), "was made") {
				t.Errorf("the log does not say so:\n%s", l.log)
			}
			until(t, k, l.vault.Rotate("etcd"))
			if n := l.Count(emulator.OpCreate); n != 1 {
				t.Errorf("made %d times", n)
			}
		})
	}
}

// A policy that somebody made stays, and is looked at once.
func TestManagedKeyKeepsItsPolicy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		first := l.open(t, func(c *azure.Config) { c.Managed = &azure.Managed{RotateAfter: 30 * 24 * time.Hour} })
		version(t, first)
		k := l.open(t, managed)
		for range 20 {
			version(t, k)
			time.Sleep(time.Minute)
		}
		if got := l.vault.Policy("etcd"); got != "P30D" {
			t.Errorf("the policy rotates after %q", got)
		}
		if n := l.Count(emulator.OpGetPolicy); n != 2 {
			t.Errorf("the policy was asked for %d times", n)
		}
	})
}

// Not being allowed to see to the policy is a warning.
func TestManagedKeyWithoutPermission(t *testing.T) {
	l := newLab(t)
	l.Inject(emulator.ForbiddenByRBAC(emulator.OpGetPolicy))
	k := l.open(t, managed)
	opens(t, k, must(t, k))
	if log := l.log.String(); !strings.Contains(log, "Crypto Officer") || strings.Contains(log, "Caller:") {
		t.Errorf("the log: %s", log)
	}
}

// A vault that has no time for the policy is asked again; what it refuses is not.
func TestManagedKeyGetsItsPolicyLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		fault := l.Inject(emulator.ServerError(emulator.OpUpdatePolicy, 503))
		k := l.open(t, managed)
		version(t, k)
		fault.Clear()
		if got := l.vault.Policy("etcd"); got != "" {
			t.Fatalf("the policy rotates after %q", got)
		}
		time.Sleep(10 * time.Minute)
		version(t, k)
		if got := l.vault.Policy("etcd"); got != "P90D" {
			t.Errorf("the policy rotates after %q", got)
		}
		refused := l.open(t, managed)
		fault = l.Inject(emulator.ForbiddenByRBAC(emulator.OpGetPolicy))
		for range 60 {
			version(t, refused)
			time.Sleep(time.Minute)
		}
		if n := fault.Hits(); n != 1 {
			t.Errorf("a vault that refuses was asked %d times", n)
		}
	})
}

// A key that was deleted and can be recovered is not made again; one that is not
// managed never is.
func TestDeletedKeyIsNotMadeAgain(t *testing.T) {
	l := newLab(t)
	w := must(t, l.open(t, nil))
	l.vault.Delete("etcd")
	k := l.open(t, managed)
	_, err := k.Version(t.Context())
	wants(t, "managed", err, kek.NotFound, "ObjectIsDeletedButRecoverable", "recover it")
	_, err = l.open(t, nil).Version(t.Context())
	wants(t, "not managed", err, kek.NotFound, "KeyNotFound")
	l.vault.Recover("etcd")
	opens(t, k, w)
	l.vault.Delete("etcd")
	l.vault.Purge("etcd")
	_, err = l.open(t, nil).Version(t.Context())
	wants(t, "not managed, purged", err, kek.NotFound)
	if n := l.Count(emulator.OpCreate); n != 1 {
		t.Errorf("made %d times", n)
	}
	if got := version(t, k); got != l.vault.Current("etcd") {
		t.Errorf("managed, purged: the version is %s", got)
	}
	_, err = k.Unwrap(t.Context(), w)
	wants(t, "what the purged key wrapped", err, kek.NotFound)
}

// An identity that may not make keys says so.
func TestManagedKeyThatMayNotBeMade(t *testing.T) {
	l := newLabAt(t, emulator.VaultConfig{Host: host}, "")
	l.Inject(emulator.ForbiddenByRBAC(emulator.OpCreate))
	_, err := l.open(t, managed).Wrap(t.Context(), testDEK)
	wants(t, "wrapping", err, kek.Denied, "making the key", "ForbiddenByRbac")
}

// Without purge protection the log warns, once.
func TestPurgeProtectionWarning(t *testing.T) {
	for _, protected := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			l := newLabAt(t, emulator.VaultConfig{Host: host, PurgeProtection: protected, RecoverableDays: 7}, "RSA")
			k := l.open(t, nil)
			for range 20 {
				version(t, k)
				time.Sleep(time.Minute)
			}
			want := map[bool]int{false: 1, true: 0}[protected]
			if got := strings.Count(l.log.String(), "purge protection is off"); got != want {
				t.Errorf("protected: %v, warned %d times", protected, got)
			}
		})
	}
}

// A version that is about to expire is warned of.
func TestExpiryWarning(t *testing.T) {
	l := newLab(t)
	l.vault.SetExpires("etcd", "", time.Now().Add(20*24*time.Hour))
	version(t, l.open(t, nil))
	if !strings.Contains(l.log.String(), "expires soon") {
		t.Errorf("the log: %s", l.log)
	}
}

// What a vault says of a key is asked without changing anything.
func TestProperties(t *testing.T) {
	for name, r := range map[string]struct {
		protected bool
		change    func(*emulator.Vault)
		want      azure.Properties
	}{
		"protected":     {true, nil, azure.Properties{Recoverable: true, RecoveryLevel: "Recoverable"}},
		"not protected": {false, nil, azure.Properties{Recoverable: true, Purgeable: true, RecoveryLevel: "Recoverable+Purgeable"}},
		"expires": {true, func(v *emulator.Vault) { v.SetExpires("etcd", "", time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)) },
			azure.Properties{Recoverable: true, RecoveryLevel: "Recoverable", Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLabAt(t, emulator.VaultConfig{Host: host, PurgeProtection: r.protected}, "RSA")
			if r.change != nil {
				r.change(l.vault)
			}
			k := l.open(t, nil)
			got, err := k.Properties(t.Context())
			r.want.Version = l.vault.Current("etcd")
			if got.Expires = got.Expires.UTC(); err != nil || got != r.want {
				t.Errorf("got %+v, %v, want %+v", got, err, r.want)
			}
			l.vault.SetEnabled("etcd", "", false)
			if got, err := k.Properties(t.Context()); err != nil || got.Unusable == nil {
				t.Errorf("switched off: %+v, %v", got, err)
			}
		})
	}
	l := newLabAt(t, emulator.VaultConfig{Host: host}, "")
	_, err := l.open(t, managed).Properties(t.Context())
	wants(t, "the properties of no key", err, kek.NotFound)
	if n := l.Count(emulator.OpCreate); n != 0 {
		t.Errorf("the key was made %d times", n)
	}
}

func TestRotates(t *testing.T) {
	l := newLab(t)
	for _, want := range []bool{false, true} {
		if got, err := l.open(t, nil).Rotates(t.Context()); err != nil || got != want {
			t.Errorf("rotates: %v, %v, want %v", got, err, want)
		}
		version(t, l.open(t, managed)) // gives it a policy
	}
}
