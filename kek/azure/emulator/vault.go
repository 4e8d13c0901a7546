package emulator

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// DefaultTenant is the tenant of vaults and identities that name none.
const DefaultTenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"

// deletion is how long a key is being deleted before it can be seen as deleted, as
// in recordings of the service.
const deletion = 10 * time.Second

// VaultConfig describes a vault.
type VaultConfig struct {
	// Host is the vault's host name. A name under managedhsm.* makes it a
	// Managed HSM, whose keys include symmetric ones. Required.
	Host string
	// Tenant is the tenant whose tokens it accepts; "" is DefaultTenant.
	Tenant string
	// PurgeProtection forbids purging. It is off by default, as the service's.
	PurgeProtection bool
	// RecoverableDays is how long a deleted key can be recovered; 0 is 90.
	RecoverableDays int
}

// Vault is one vault. All methods are safe for concurrent use; those that name a
// key that is not there panic, since that is a mistake of the test.
type Vault struct {
	s      *Server
	config VaultConfig
	keys   map[string]*key // s.mu guards it and what is in it
}

// AddVault adds an empty vault.
func (s *Server) AddVault(cfg VaultConfig) *Vault {
	cfg.Host = strings.ToLower(cfg.Host)
	cfg.Tenant = cmp.Or(cfg.Tenant, DefaultTenant)
	cfg.RecoverableDays = cmp.Or(cfg.RecoverableDays, 90)
	v := &Vault{s: s, config: cfg, keys: map[string]*key{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vaults[cfg.Host] = v
	return v
}

// RemoveVault deletes a vault for good: its name is not known any more.
func (s *Server) RemoveVault(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.vaults, strings.ToLower(host))
}

// URL returns the vault's URL.
func (v *Vault) URL() string { return "https://" + v.config.Host }

// hsm says whether the vault is a Managed HSM.
func (v *Vault) hsm() bool { return strings.Contains(v.config.Host, ".managedhsm.") }

// resource is what a token must be for: the vault's host name without its own name.
func (v *Vault) resource() string {
	_, domain, _ := strings.Cut(v.config.Host, ".")
	return "https://" + domain
}

func (v *Vault) recoveryLevel() string {
	level := "Recoverable"
	if v.config.RecoverableDays < 90 {
		level = "CustomizedRecoverable"
	}
	if v.config.PurgeProtection {
		return level
	}
	return level + "+Purgeable"
}

// CreateKey makes a key, or another version of one, and returns the version. kty is
// a key type, as in "RSA"; bits 0 is the type's default.
func (v *Vault) CreateKey(name, kty string, bits int) string {
	version, p := v.create(name, keySpec{kty: kty, bits: bits})
	if p != nil {
		panic("emulator: creating a key: " + p.code + ": " + p.message)
	}
	return version.id
}

// Rotate makes another version of a key and returns it.
func (v *Vault) Rotate(name string) string {
	version, p := v.rotate(name)
	if p != nil {
		panic("emulator: rotating a key: " + p.code + ": " + p.message)
	}
	return version.id
}

// Current returns the latest version of a key.
func (v *Vault) Current(name string) string {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	return v.must(name, "").id
}

// SetEnabled switches a version on or off; "" is the latest.
func (v *Vault) SetEnabled(name, version string, enabled bool) {
	v.change(name, version, func(k *keyVersion) { k.enabled = enabled })
}

// SetExpires gives a version its expiry; the zero time is none.
func (v *Vault) SetExpires(name, version string, at time.Time) {
	v.change(name, version, func(k *keyVersion) { k.expires = at })
}

// SetNotBefore gives a version the time from which it is valid.
func (v *Vault) SetNotBefore(name, version string, at time.Time) {
	v.change(name, version, func(k *keyVersion) { k.notBefore = at })
}

// SetOperations restricts a version to these key_ops.
func (v *Vault) SetOperations(name, version string, ops ...string) {
	v.change(name, version, func(k *keyVersion) { k.ops = ops })
}

// MakeCurrent has an older version answered for the latest, as a replica does that
// lags behind.
func (v *Vault) MakeCurrent(name, version string) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	k := v.keys[name]
	at := slices.Index(k.versions, v.must(name, version))
	k.versions = append(slices.Delete(slices.Clone(k.versions), at, at+1), k.versions[at])
}

// Delete deletes a key, softly and at once.
func (v *Vault) Delete(name string) {
	if _, p := v.remove(name); p != nil {
		panic("emulator: deleting a key: " + p.code)
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.keys[name].deleted = v.keys[name].deleted.Add(-deletion)
}

// Recover undoes Delete.
func (v *Vault) Recover(name string) {
	if _, p := v.restore(name); p != nil {
		panic("emulator: recovering a key: " + p.code)
	}
}

// Purge removes a deleted key for good, whatever the vault's protection.
func (v *Vault) Purge(name string) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	delete(v.keys, name)
}

// Policy returns after how long the key is rotated by its policy, in ISO 8601, or
// "" if it is not.
func (v *Vault) Policy(name string) string {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	k := v.keys[name]
	if k == nil {
		return ""
	}
	return k.policy.rotateAfter()
}

func (v *Vault) change(name, version string, f func(*keyVersion)) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	f(v.must(name, version))
}

func (v *Vault) must(name, version string) *keyVersion {
	found := v.find(name, version)
	if found == nil {
		panic("emulator: there is no key " + name + "/" + version)
	}
	return found
}
