package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/etcdseal/etcdseal/kek"
)

const day = 24 * time.Hour

// expiryWarning is how long before its expiry a version is warned of.
const expiryWarning = 30 * day

// complete checks what is set and fills in the rest.
func (m Managed) complete(hsm bool) (*Managed, error) {
	if m.KeyType == "" {
		m.KeyType = "RSA"
		if hsm {
			m.KeyType = "oct-HSM"
		}
	}
	switch {
	case m.KeyType != "RSA" && m.KeyType != "RSA-HSM" && m.KeyType != "oct-HSM":
		return nil, fmt.Errorf("a managed key cannot be of type %.32q: want RSA, RSA-HSM or oct-HSM", m.KeyType)
	case m.KeyType == "oct-HSM" && !hsm:
		return nil, errors.New("keys of type oct-HSM are on a Managed HSM only: use RSA or RSA-HSM")
	case m.KeyType == "RSA" && hsm:
		return nil, errors.New("a Managed HSM has no keys of type RSA: use RSA-HSM or oct-HSM")
	}
	switch m.KeySize {
	case 0:
		m.KeySize = DefaultKeySize
	case 2048, 3072, 4096:
	default:
		return nil, errors.New("a managed key has 2048, 3072 or 4096 bits")
	}
	if m.RotateAfter == 0 {
		m.RotateAfter = DefaultRotateAfter
	}
	if m.RotateAfter < 7*day {
		return nil, errors.New("a vault rotates a key after 7 days at the earliest")
	}
	return &m, nil
}

// create makes the key, since it was not found. A key that was deleted is not made
// again: the vault refuses that while it can be recovered.
func (k *KEK) create(ctx context.Context) (properties, error) {
	m := k.config.Managed
	in := azkeys.CreateKeyParameters{
		Kty:    to.Ptr(azkeys.KeyType(m.KeyType)),
		KeyOps: []*azkeys.KeyOperation{to.Ptr(azkeys.KeyOperationWrapKey), to.Ptr(azkeys.KeyOperationUnwrapKey)},
		Tags:   map[string]*string{"created-by": to.Ptr("etcdseal")},
	}
	if m.KeyType == "oct-HSM" {
		in.KeySize = to.Ptr[int32](256)
	} else {
		in.KeySize = to.Ptr(int32(m.KeySize))
	}
	found, err := call(ctx, k, kek.OpVersion, "", func(ctx context.Context) (properties, error) {
		answer, err := k.client.CreateKey(ctx, k.config.Key, in, nil)
		if err != nil {
			return properties{}, err
		}
		return k.read(answer.KeyBundle)
	}, nil)
	if err != nil {
		if e, ok := errors.AsType[*kek.Error](err); ok {
			e.Err = fmt.Errorf("making the key, which was not there: %w", e.Err)
		}
		return properties{}, err
	}
	k.log.Warn("the key was not there and was made; what an earlier key of this name wrapped cannot be opened with it", "keyVersion", found.id, "keyType", m.KeyType)
	return found, nil
}

// settle sees to it that a managed key is rotated by the vault: until there was an
// answer, the key holder's no included. A policy that somebody made stays. Failing is no
// reason not to use the key. The caller holds asking.
func (k *KEK) settle(ctx context.Context) {
	if k.config.Managed == nil || k.follow.isSettled() {
		return
	}
	// The caller's trace is of the question for the version.
	err := k.setPolicy(kek.WithTrace(ctx, &kek.Trace{}))
	if err == nil || kek.ClassOf(err).Denies() {
		k.follow.settle()
	}
	if err != nil && k.first("policy "+kek.ClassOf(err).String()) {
		k.log.Warn("the managed key's rotation policy could not be seen to; the identity needs the permissions for it, as in the role Key Vault Crypto Officer", "error", err.Error())
	}
}

// setPolicy gives the key a rotation policy if it has none that rotates.
func (k *KEK) setPolicy(ctx context.Context) error {
	rotated, err := k.Rotates(ctx)
	if err != nil || rotated {
		return err
	}
	after := fmt.Sprintf("P%dD", k.config.Managed.RotateAfter/day)
	_, err = call(ctx, k, kek.OpVersion, "", func(ctx context.Context) (struct{}, error) {
		_, err := k.client.UpdateKeyRotationPolicy(ctx, k.config.Key, azkeys.KeyRotationPolicy{LifetimeActions: []*azkeys.LifetimeAction{{
			Action:  &azkeys.LifetimeActionType{Type: to.Ptr(azkeys.KeyRotationPolicyActionRotate)},
			Trigger: &azkeys.LifetimeActionTrigger{TimeAfterCreate: &after},
		}}}, nil)
		return struct{}{}, err
	}, nil)
	if err == nil {
		k.log.Info("the key got a rotation policy", "rotateAfter", after)
	}
	return err
}

func (f *follower) isSettled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settled
}

func (f *follower) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = true
}

// rotates says whether a policy has the vault make new versions.
func rotates(p azkeys.KeyRotationPolicy) bool {
	for _, a := range p.LifetimeActions {
		if a != nil && a.Action != nil && a.Action.Type != nil && strings.EqualFold(string(*a.Action.Type), string(azkeys.KeyRotationPolicyActionRotate)) {
			return true
		}
	}
	return false
}

// warn tells the log, once each, what will go wrong.
func (k *KEK) warn(found properties) {
	if strings.Contains(found.recoveryLevel, "Purgeable") && k.first("purge") {
		k.log.Warn("purge protection is off: whoever may purge can destroy the key for good, and everything sealed under it; turn it on (az keyvault update --enable-purge-protection true)",
			"recoveryLevel", plainLevel(found.recoveryLevel))
	}
	if _, err := found.usable(time.Now()); err != nil {
		if k.first("unusable " + found.id) {
			k.log.Warn("the latest version of the key cannot wrap", "keyVersion", found.id, "error", err.Error())
		}
	} else if !found.expires.IsZero() && time.Until(found.expires) < expiryWarning && k.first("expires "+found.id) {
		k.log.Warn("the version of the key that wraps expires soon, and will only unwrap from then on", "keyVersion", found.id, "expires", found.expires)
	}
}

// first says whether something is said for the first time.
func (k *KEK) first(what string) bool {
	k.follow.mu.Lock()
	defer k.follow.mu.Unlock()
	said := k.follow.warned[what]
	k.follow.warned[what] = true
	return !said
}

// plainLevel returns a recovery level as it may be logged.
func plainLevel(level string) string {
	if plainID(strings.ReplaceAll(level, "+", "-")) == "" {
		return "unknown"
	}
	return level
}

// Properties are what a vault says of a key beside what it does with it.
type Properties struct {
	// Version is the latest version.
	Version string
	// Unusable is why that version cannot wrap; nil if it can.
	Unusable error
	// Expires is when it will only unwrap from then on; zero is never.
	Expires time.Time
	// Purgeable says that whoever has the right to purge can destroy the key for good
	// while it is deleted: purge protection is off.
	Purgeable bool
	// Recoverable says that a key which was deleted can be recovered: soft delete is on.
	Recoverable bool
	// RecoveryLevel is the vault's own word for both.
	RecoveryLevel string
}

// Properties asks the vault for its latest version of the key. It makes none and changes
// nothing, and reading is no proof that the key may be used.
func (k *KEK) Properties(ctx context.Context) (Properties, error) {
	found, err := k.get(ctx, "")
	if err != nil {
		return Properties{}, err
	}
	_, unusable := found.usable(time.Now())
	return Properties{
		Version: found.id, Unusable: unusable, Expires: found.expires,
		Purgeable: strings.Contains(found.recoveryLevel, "Purgeable"), Recoverable: strings.Contains(found.recoveryLevel, "Recoverable"),
		RecoveryLevel: plainLevel(found.recoveryLevel),
	}, nil
}

// Rotates asks the vault whether it makes new versions of the key by itself, for which the
// identity needs a permission of its own.
func (k *KEK) Rotates(ctx context.Context) (bool, error) {
	return call(ctx, k, kek.OpVersion, "", func(ctx context.Context) (bool, error) {
		answer, err := k.client.GetKeyRotationPolicy(ctx, k.config.Key, nil)
		return rotates(answer.KeyRotationPolicy), err
	}, nil)
}
