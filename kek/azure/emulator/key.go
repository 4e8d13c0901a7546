package emulator

import (
	"cmp"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// key is a name with its versions, in the order of their making: the last one is
// the latest.
type key struct {
	versions []*keyVersion
	policy   policy
	deleted  time.Time // zero: not
}

// keyVersion is one version. The material never changes; s.mu guards the rest.
type keyVersion struct {
	vault, name, id    string
	kty                string
	rsa                *rsa.PrivateKey
	aes                []byte
	ec                 *ecdsa.PrivateKey
	ops                []string
	enabled            bool
	created, updated   time.Time
	notBefore, expires time.Time
}

// keySpec is what a key is made by.
type keySpec struct {
	kty                string
	bits               int
	ops                []string
	enabled            *bool
	notBefore, expires time.Time
}

// keyNames is the API definition's pattern.
var keyNames = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)

// find returns a version that is not deleted, or nil. The caller holds s.mu.
func (v *Vault) find(name, version string) *keyVersion {
	k := v.keys[name]
	if k == nil || !k.deleted.IsZero() {
		return nil
	}
	if version == "" {
		return k.versions[len(k.versions)-1]
	}
	for _, found := range k.versions {
		if found.id == version {
			return found
		}
	}
	return nil
}

// create makes another version of a key, and the key if there is none.
func (v *Vault) create(name string, spec keySpec) (*keyVersion, *problem) {
	if !keyNames.MatchString(name) {
		return nil, badParameter("The request URI contains an invalid name: " + name)
	}
	made := &keyVersion{vault: v.config.Host, name: name, id: newID(), kty: spec.kty, ops: spec.ops, enabled: true,
		created: v.s.now(), notBefore: spec.notBefore, expires: spec.expires}
	made.updated = made.created
	if spec.enabled != nil {
		made.enabled = *spec.enabled
	}
	if p := v.generate(made, spec.bits); p != nil {
		return nil, p
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	k := v.keys[name]
	switch {
	case k == nil:
		k = &key{}
		v.keys[name] = k
	case !k.deleted.IsZero():
		return nil, deletedName(name, v.isGone(k))
	}
	k.versions = append(k.versions, made)
	return made, nil
}

// generate makes the material of a version.
func (v *Vault) generate(k *keyVersion, bits int) (p *problem) {
	var err error
	switch {
	case k.kty == "RSA" && !v.hsm() || k.kty == "RSA-HSM":
		k.rsa, err = v.s.config.GenerateKey(cmp.Or(bits, 2048))
		k.defaultOps("encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey")
	case k.kty == "oct-HSM" && v.hsm():
		k.aes = make([]byte, cmp.Or(bits, 256)/8)
		_, err = rand.Read(k.aes)
		k.defaultOps("encrypt", "decrypt", "wrapKey", "unwrapKey")
	case k.kty == "EC" && !v.hsm() || k.kty == "EC-HSM":
		k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		k.defaultOps("sign", "verify")
	default:
		return badParameter(fmt.Sprintf("Property 'kty' has invalid value: %q\r\n", k.kty))
	}
	if err != nil {
		return badParameter("The key cannot be made: " + err.Error())
	}
	return nil
}

func (k *keyVersion) defaultOps(ops ...string) {
	if k.ops == nil {
		k.ops = ops
	}
}

// rotate makes another version like the latest.
func (v *Vault) rotate(name string) (*keyVersion, *problem) {
	v.s.mu.Lock()
	latest := v.find(name, "")
	v.s.mu.Unlock()
	if latest == nil {
		return nil, notFound(name)
	}
	spec := keySpec{kty: latest.kty, ops: latest.ops, bits: len(latest.aes) * 8}
	if latest.rsa != nil {
		spec.bits = latest.rsa.N.BitLen()
	}
	return v.create(name, spec)
}

// remove deletes a key softly.
func (v *Vault) remove(name string) (*key, *problem) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.find(name, "") == nil {
		return nil, notFound(name)
	}
	k := v.keys[name]
	k.deleted = v.s.now()
	return k, nil
}

// isGone says whether the deletion is through. The caller holds s.mu.
func (v *Vault) isGone(k *key) bool { return !v.s.now().Before(k.deleted.Add(deletion)) }

// getDeleted returns a key that is deleted.
func (v *Vault) getDeleted(name string) (*key, *problem) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	k := v.keys[name]
	if k == nil || k.deleted.IsZero() || !v.isGone(k) {
		return nil, &problem{status: 404, code: "KeyNotFound", message: "Deleted Key not found: " + name}
	}
	return k, nil
}

// restore undoes remove.
func (v *Vault) restore(name string) (*keyVersion, *problem) {
	k, p := v.getDeleted(name)
	if p != nil {
		return nil, p
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	k.deleted = time.Time{}
	return v.find(name, ""), nil
}

// purge removes a deleted key for good.
func (v *Vault) purge(name string) *problem {
	if _, p := v.getDeleted(name); p != nil {
		return p
	}
	if v.config.PurgeProtection {
		return purgeProtected()
	}
	v.Purge(name)
	return nil
}

// allow says whether an operation may be done by a version now. Validity in time
// binds only the operations that protect new data. The caller holds s.mu.
func (k *keyVersion) allow(op, permission string, now time.Time) *problem {
	protects := op == OpWrap || op == OpEncrypt
	switch {
	case !k.enabled:
		return disabled(permission)
	case !slices.Contains(k.ops, permission):
		return notPermitted(permission)
	case protects && !k.expires.IsZero() && !now.Before(k.expires):
		return expired(permission)
	case protects && now.Before(k.notBefore):
		return notYetValid(permission)
	}
	return nil
}

// apply wraps or unwraps, encrypts or decrypts.
func (k *keyVersion) apply(op, algorithm string, value []byte) ([]byte, *problem) {
	protects := op == OpWrap || op == OpEncrypt
	switch {
	case k.rsa != nil && (algorithm == "RSA-OAEP-256" || algorithm == "RSA-OAEP"):
		return k.applyRSA(protects, algorithm, value)
	case k.aes != nil && algorithm == "A256KW" && len(k.aes) == 32:
		return k.applyAES(protects, value)
	}
	return nil, badParameter(fmt.Sprintf("Key and wrapping algorithm are incompatible. Key %s is of type '%s', and algorithm '%s' cannot be used with it.", k.kid(), k.kty, algorithm))
}

func (k *keyVersion) applyRSA(protects bool, algorithm string, value []byte) ([]byte, *problem) {
	hash := oaepHash(algorithm)
	if protects {
		wrapped, err := rsa.EncryptOAEP(hash, rand.Reader, &k.rsa.PublicKey, value, nil)
		if err != nil {
			return nil, badParameter("The parameter is incorrect.")
		}
		return wrapped, nil
	}
	opened, err := rsa.DecryptOAEP(hash, nil, k.rsa, value, nil)
	if err != nil {
		return nil, undecryptable()
	}
	return opened, nil
}

func (k *keyVersion) applyAES(protects bool, value []byte) ([]byte, *problem) {
	block, err := aes.NewCipher(k.aes)
	if err != nil {
		return nil, badParameter("The key cannot be used.")
	}
	if protects {
		if len(value)%8 != 0 || len(value) < 16 {
			return nil, badParameter("The parameter is incorrect.")
		}
		return wrapAES(block, value), nil
	}
	opened, ok := unwrapAES(block, value)
	if !ok {
		return nil, undecryptable()
	}
	return opened, nil
}

// kid is the version's identifier.
func (k *keyVersion) kid() string {
	return "https://" + k.vault + "/keys/" + k.name + "/" + k.id
}

// bundle is the JSON of a version. The caller holds s.mu.
func (v *Vault) bundle(k *keyVersion) map[string]any {
	jwk := map[string]any{"kid": k.kid(), "kty": k.kty, "key_ops": k.ops}
	switch {
	case k.rsa != nil:
		jwk["n"] = base64.RawURLEncoding.EncodeToString(k.rsa.N.Bytes())
		jwk["e"] = "AQAB"
	case k.ec != nil:
		point, err := k.ec.PublicKey.Bytes()
		if err != nil {
			panic(err) // it was generated here
		}
		jwk["crv"] = "P-256"
		jwk["x"] = base64.RawURLEncoding.EncodeToString(point[1:33])
		jwk["y"] = base64.RawURLEncoding.EncodeToString(point[33:])
	}
	return map[string]any{"key": jwk, "attributes": v.attributes(k)}
}

// attributes is the JSON of a version's attributes. The caller holds s.mu.
func (v *Vault) attributes(k *keyVersion) map[string]any {
	attributes := map[string]any{
		"enabled": k.enabled, "created": k.created.Unix(), "updated": k.updated.Unix(),
		"recoveryLevel": v.recoveryLevel(), "recoverableDays": v.config.RecoverableDays, "exportable": false, "hsmPlatform": "0",
	}
	if strings.HasSuffix(k.kty, "-HSM") {
		attributes["hsmPlatform"] = "2"
	}
	if !k.notBefore.IsZero() {
		attributes["nbf"] = k.notBefore.Unix()
	}
	if !k.expires.IsZero() {
		attributes["exp"] = k.expires.Unix()
	}
	return attributes
}
