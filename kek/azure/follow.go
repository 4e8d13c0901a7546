package azure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/etcdseal/etcdseal/kek"
)

// Waits between two questions for the latest version, if PollInterval is not
// shorter: after a new one was named once, and after there was no answer.
const (
	confirmAfter = 30 * time.Second
	repeatAfter  = 30 * time.Second
)

// version is one version of the key that wraps, and how. The zero version is none.
type version struct{ id, algorithm string }

// follower knows which version is the latest. It polls when it is asked and the
// time has come, so that there is no goroutine to own.
type follower struct {
	asking chan struct{} // held by whoever asks the vault

	mu       sync.Mutex // guards all below
	believed version
	named    string // a version that was named once and is not believed yet
	due      time.Time
	// reconsider is the time from which a refused version is reconsidered.
	reconsider time.Time
	asked      int             // how often the vault answered, or failed to
	failed     error           // what came of the last time, nil for a version
	warned     map[string]bool // what the log was told
	settled    bool            // the rotation policy was seen to
}

func (f *follower) init() {
	f.asking, f.warned = make(chan struct{}, 1), map[string]bool{}
}

// now returns what is believed, and whether it is time to ask.
func (f *follower) now() (by version, due bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.believed, !time.Now().Before(f.due)
}

// last returns what came of asking the last time, and how often that was done.
func (f *follower) last() (by version, asked int, failed error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.believed, f.asked, f.failed
}

// note takes in what came of asking.
func (f *follower) note(failed error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed, f.asked = failed, f.asked+1
}

// next sets when to ask again.
func (f *follower) next(wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due = time.Now().Add(wait*9/10 + rand.N(wait/5+1))
}

// current returns the version to wrap by: without asking if there is one.
func (k *KEK) current(ctx context.Context, op string) (version, error) {
	if err := k.begin(ctx); err != nil {
		return version{}, k.fail(op, kek.Unavailable, "", err)
	}
	by, _ := k.follow.now()
	if by.id != "" {
		return by, nil
	}
	by, err := k.poll(ctx)
	if e, ok := errors.AsType[*kek.Error](err); ok && e.Op != op {
		return by, k.fail(op, e.Class, e.Version, fmt.Errorf("finding the latest version: %w", e.Err))
	}
	return by, err
}

// poll returns the version that is believed, after asking the vault if it is time.
// While somebody else asks, the others go on with what is believed; if nothing is, they
// wait for what that one comes to.
func (k *KEK) poll(ctx context.Context) (version, error) {
	if err := k.begin(ctx); err != nil {
		return version{}, k.fail(kek.OpVersion, kek.Unavailable, "", err)
	}
	by, due := k.follow.now()
	if !due && by.id != "" {
		return by, nil
	}
	_, before, _ := k.follow.last()
	select {
	case k.follow.asking <- struct{}{}:
	default:
		if by.id != "" {
			return by, nil
		}
		select {
		case k.follow.asking <- struct{}{}:
		case <-ctx.Done():
			return version{}, k.fail(kek.OpVersion, kek.Unavailable, "", ctx.Err())
		case <-k.closing.Done():
			return version{}, k.fail(kek.OpVersion, kek.Unavailable, "", errClosed)
		}
	}
	defer func() { <-k.follow.asking }()
	if by, due = k.follow.now(); !due && by.id != "" {
		return by, nil
	}
	if by, asked, failed := k.follow.last(); asked != before && by.id == "" {
		return by, failed
	}
	return k.look(ctx)
}

// look asks the vault for the latest version and takes in the answer. The caller
// holds asking. That the caller's context ended is nobody else's affair.
func (k *KEK) look(ctx context.Context) (version, error) {
	by, err := k.seek(ctx)
	if k.ended(ctx) == nil {
		k.follow.note(err)
	}
	return by, err
}

// seek is what look does.
func (k *KEK) seek(ctx context.Context) (version, error) {
	found, err := k.get(ctx, "")
	if err != nil && k.config.Managed != nil && kek.ClassOf(err) == kek.NotFound {
		found, err = k.create(ctx)
	}
	if err != nil {
		k.follow.next(min(k.config.PollInterval, repeatAfter))
		return version{}, err
	}
	k.warn(found)
	by, err := k.consider(found)
	if err == nil {
		k.settle(ctx)
	}
	return by, err
}

// consider takes in what the vault says is the latest version. One that cannot wrap
// is not followed.
func (k *KEK) consider(found properties) (version, error) {
	f, wait := &k.follow, k.config.PollInterval
	defer func() { k.follow.next(wait) }()
	f.mu.Lock()
	defer f.mu.Unlock()
	class, unusable := found.usable(time.Now())
	if unusable != nil && (f.believed.id == "" || f.believed.id == found.id) {
		wait = min(wait, repeatAfter)
		return version{}, k.fail(kek.OpVersion, class, found.id, unusable)
	}
	switch {
	case unusable != nil, found.id == f.believed.id:
		f.named = ""
	case f.believed.id == "":
		f.believed, f.named = found.version, ""
		k.log.Info("the key's latest version is followed", "keyVersion", found.id, "algorithm", found.algorithm)
	case found.id == f.named:
		k.log.Info("the key has another version", "keyVersion", found.id, "before", f.believed.id)
		f.believed, f.named = found.version, ""
	default:
		f.named = found.id
		wait = min(wait, confirmAfter)
	}
	return f.believed, nil
}

// reconsider is called when the vault refuses to wrap by a version for good. It asks
// at once for another one, twice, and returns what is believed then. If nothing
// comes of it, that is not repeated for repeatAfter.
func (k *KEK) reconsider(ctx context.Context, refused version) version {
	select {
	case k.follow.asking <- struct{}{}:
	case <-ctx.Done():
		return refused
	}
	defer func() { <-k.follow.asking }()
	// The caller's trace is of the wrapping.
	ctx = kek.WithTrace(ctx, &kek.Trace{})
	if by, _ := k.follow.now(); by.id != refused.id {
		return by
	}
	if !k.follow.mayReconsider() {
		return refused
	}
	for range 2 {
		by, err := k.look(ctx)
		if err != nil {
			return refused
		}
		if by.id != refused.id {
			return by
		}
		if !k.follow.hasNamed() {
			break
		}
	}
	return refused
}

// mayReconsider says whether the last time is long enough ago.
func (f *follower) mayReconsider() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Before(f.reconsider) {
		return false
	}
	f.reconsider = now.Add(repeatAfter)
	return true
}

func (f *follower) hasNamed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.named != ""
}

// properties are what a vault says of a version.
type properties struct {
	version
	keyType            string
	enabled            bool
	created            time.Time
	notBefore, expires time.Time
	recoveryLevel      string
}

// get asks the vault for a version; "" is the latest.
func (k *KEK) get(ctx context.Context, id string) (properties, error) {
	return call(ctx, k, kek.OpVersion, id, func(ctx context.Context) (properties, error) {
		answer, err := k.client.GetKey(ctx, k.config.Key, id, nil)
		if err != nil {
			return properties{}, err
		}
		found, err := k.read(answer.KeyBundle)
		if err == nil && id != "" && found.id != id {
			err = errForeign
		}
		return found, err
	}, nil)
}

// read reads a key bundle.
func (k *KEK) read(b azkeys.KeyBundle) (properties, error) {
	if b.Key == nil || b.Key.KID == nil || b.Key.Kty == nil || b.Attributes == nil {
		return properties{}, errForeign
	}
	id, err := parseKeyID(string(*b.Key.KID), k.host, k.config.Key)
	if err != nil {
		return properties{}, err
	}
	p := properties{version: version{id: id}, keyType: plainID(string(*b.Key.Kty)), enabled: b.Attributes.Enabled == nil || *b.Attributes.Enabled}
	switch *b.Key.Kty {
	case azkeys.KeyTypeRSA, azkeys.KeyTypeRSAHSM:
		p.algorithm = AlgorithmRSA
	case azkeys.KeyTypeOctHSM:
		p.algorithm = AlgorithmAES
	}
	for _, t := range []struct {
		to   *time.Time
		from *time.Time
	}{{&p.created, b.Attributes.Created}, {&p.notBefore, b.Attributes.NotBefore}, {&p.expires, b.Attributes.Expires}} {
		if t.from != nil {
			*t.to = *t.from
		}
	}
	if b.Attributes.RecoveryLevel != nil {
		p.recoveryLevel = *b.Attributes.RecoveryLevel
	}
	return p, nil
}

// usable says why a version cannot wrap, if it cannot.
func (p properties) usable(now time.Time) (kek.Class, error) {
	switch {
	case p.algorithm == "":
		return kek.Denied, fmt.Errorf("the key is of type %q, which cannot wrap: use an RSA key, or on a Managed HSM an oct-HSM key of 256 bits", p.keyType)
	case !p.enabled:
		return kek.Disabled, errors.New("the latest version of the key is switched off: enable it, or rotate the key")
	case !p.expires.IsZero() && !now.Before(p.expires):
		return kek.Disabled, errors.New("the latest version of the key has expired: rotate it, or change its expiry; it still unwraps")
	case now.Before(p.notBefore):
		return kek.Disabled, errors.New("the latest version of the key is not valid yet")
	}
	return 0, nil
}
