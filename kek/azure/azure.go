// Package azure is a KEK in Azure Key Vault or a Managed HSM.
//
// A DEK is wrapped and unwrapped by the vault (wrapKey, unwrapKey), with
// RSA-OAEP-256 by RSA keys and A256KW by the symmetric keys of a Managed HSM; the
// key never leaves it. The key is named without a version: its latest one is
// followed by polling, and every wrapping says which version made it and is
// unwrapped with exactly that one. Where the vault is and what the key is called
// comes from the configuration; of a record only the version is used.
//
// The package guarantees that the vault's no is told from silence (kek.Class), that
// no call takes longer than its deadline, that a throttled vault is left alone for
// as long as it asks, and that errors and logs hold no token, secret, DEK, wrapped
// bytes or body of an answer. It covers the threat of a stolen etcd, and of an etcd
// whose records are changed to name another vault or key. RSA wrappings are not
// authentic, as package kek says. What the SDK makes of a DEK on its way (strings,
// JSON, TLS buffers) cannot be wiped; the answer's body is.
package azure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/etcdseal/etcdseal/kek"
)

// The values of Wrapping.Algorithm (RFC 7518, section 4.1).
const (
	AlgorithmRSA = "RSA-OAEP-256" // RSA and RSA-HSM keys
	AlgorithmAES = "A256KW"       // oct-HSM keys, Managed HSM only
)

// sizeAES is the size of a DEK wrapped with A256KW (RFC 3394).
const sizeAES = kek.DEKSize + 8

// sizesRSA are the sizes of a DEK wrapped by an RSA key: those of its modulus.
var sizesRSA = []int{2048 / 8, 3072 / 8, 4096 / 8}

// Defaults of Config.
const (
	DefaultPollInterval = 5 * time.Minute
	DefaultTryTimeout   = 20 * time.Second // the service was seen to take 18 s for hours
	DefaultTimeout      = 30 * time.Second
	DefaultKeySize      = 3072
	DefaultRotateAfter  = 90 * 24 * time.Hour
)

// Config says which key, and how to reach it. VaultURL, Key and Credential.Type are
// required.
type Config struct {
	// Name is what errors call the KEK: its name in the configuration. May be
	// empty.
	Name string
	// VaultURL is https:// and the vault's host name, with no port or path.
	VaultURL string
	// Key is the key's name, without a version.
	Key string
	// Credential says as whom to log in.
	Credential Credential
	// AuthorityHost is the URL of the login service. Empty is that of the
	// cloud that the vault's host name belongs to.
	AuthorityHost string
	// Address is the host:port to connect to for the vault, a private
	// endpoint's for instance; TLS and requests still name the vault. Empty
	// is the vault's host name and port 443.
	Address string
	// CAFile holds authorities, in PEM, that are trusted beside the system's
	// for every connection of this KEK. Empty is none.
	CAFile string
	// Proxy says which HTTP proxy to use for a request, as
	// http.Transport.Proxy does; nil is none. It is not asked for connections
	// to Address and to the machine's own metadata service.
	Proxy func(*http.Request) (*url.URL, error)
	// PollInterval is how often the vault is asked for the latest version,
	// give or take a tenth; 0 is DefaultPollInterval.
	PollInterval time.Duration
	// TryTimeout bounds one try of a call, login included; 0 is
	// DefaultTryTimeout.
	TryTimeout time.Duration
	// Timeout bounds a method with everything that it asks, its only second
	// tries and all waiting; 0 is DefaultTimeout.
	Timeout time.Duration
	// Managed, if set, has the key made when there is none, and rotated by
	// the vault.
	Managed *Managed
	// Dial connects; nil is a net.Dialer. It sees the address after Address
	// was applied.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger gets changes of state; nil is none.
	Logger *slog.Logger
}

// Managed says how a key is made that is not there.
type Managed struct {
	// KeyType is "RSA", "RSA-HSM" or "oct-HSM". Empty is oct-HSM on a Managed
	// HSM and RSA elsewhere.
	KeyType string
	// KeySize is the size of an RSA key in bits: 2048, 3072 or 4096. 0 is
	// DefaultKeySize.
	KeySize int
	// RotateAfter is the age at which the vault makes another version, in
	// whole days of which there are at least 7. 0 is DefaultRotateAfter.
	RotateAfter time.Duration
}

// KEK is a key in a vault. It is safe for concurrent use.
type KEK struct {
	config Config
	host   string // the vault's host name
	client *azkeys.Client
	login  *login
	http   *http.Transport
	log    *slog.Logger
	gate   gate
	follow follower

	closing context.Context // ended by Close
	close   context.CancelFunc
	mu      sync.Mutex     // keeps Close and the beginning of a try apart
	running sync.WaitGroup // tries
}

var _ kek.Dated = (*KEK)(nil)

// versionForm is the form of a version's name. The service uses 32 hexadecimal
// digits.
var versionForm = regexp.MustCompile(`^[0-9A-Za-z]{1,64}$`)

// New returns a KEK. It reads the files that the configuration names and asks
// nobody: whether the vault can be reached shows when it is used.
func New(cfg Config) (*KEK, error) {
	host, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("opening Key Vault %s: %w", cfg.VaultURL, err)
	}
	k := &KEK{config: cfg, host: host, log: cfg.Logger.With("kek", cfg.Name, "vault", host, "key", cfg.Key)}
	k.follow.init()
	k.closing, k.close = context.WithCancel(context.Background())
	client, transport, err := newHTTP(&cfg, host)
	if err != nil {
		return nil, fmt.Errorf("opening Key Vault %s: %w", cfg.VaultURL, err)
	}
	k.http = transport
	options := azcore.ClientOptions{
		Transport: client,
		Cloud:     cloudOf(host, cfg.AuthorityHost),
		Retry:     policy.RetryOptions{MaxRetries: -1}, // KEK.call tries again
		Telemetry: policy.TelemetryOptions{ApplicationID: "etcdseal"},
	}
	if options.Cloud.ActiveDirectoryAuthorityHost == "" {
		return nil, fmt.Errorf("opening Key Vault %s: no cloud is known that the name belongs to: set authorityHost to its login service", cfg.VaultURL)
	}
	silenceSDK()
	k.login, err = newLogin(cfg.Credential, options)
	if err != nil {
		return nil, fmt.Errorf("opening Key Vault %s: %w", cfg.VaultURL, err)
	}
	k.client, err = azkeys.NewClient("https://"+host, k.login, &azkeys.ClientOptions{ClientOptions: options})
	if err != nil {
		return nil, fmt.Errorf("opening Key Vault %s: %w", cfg.VaultURL, err)
	}
	return k, nil
}

// complete fills in the defaults and returns the vault's host name.
func (c *Config) complete() (host string, err error) {
	host, err = vaultHost(c.VaultURL)
	if err != nil {
		return "", err
	}
	if !keyNameForm.MatchString(c.Key) {
		return "", fmt.Errorf("%.64q cannot be the name of a key: want 1 to 127 letters, digits and dashes, and no version, since the latest one is followed", c.Key)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.PollInterval, DefaultPollInterval}, {&c.TryTimeout, DefaultTryTimeout}, {&c.Timeout, DefaultTimeout}} {
		if *d.field < 0 {
			return "", errors.New("an interval or timeout is negative")
		}
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Managed != nil {
		managed, err := c.Managed.complete(isHSM(host))
		if err != nil {
			return "", err
		}
		c.Managed = managed
	}
	return host, nil
}

// Wrap encrypts a DEK by the latest version that is believed. Should the vault say
// that this one is gone or switched off, it is asked for the latest again, and
// another one is used at once.
func (k *KEK) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	if len(dek) != kek.DEKSize {
		err := fmt.Errorf("the DEK has %d bytes, want %d", len(dek), kek.DEKSize)
		return kek.Wrapping{}, k.fail(kek.OpWrap, kek.Corrupt, "", err)
	}
	ctx, end := k.bound(ctx)
	defer end()
	by, err := k.current(ctx, kek.OpWrap)
	if err != nil {
		return kek.Wrapping{}, err
	}
	w, err := k.wrap(ctx, by, dek)
	if class := kek.ClassOf(err); class == kek.Disabled || class == kek.NotFound {
		if next := k.reconsider(ctx, by); next.id != by.id {
			return k.wrap(ctx, next, dek)
		}
	}
	return w, err
}

// wrap encrypts a DEK by one version.
func (k *KEK) wrap(ctx context.Context, by version, dek []byte) (kek.Wrapping, error) {
	wrapped, err := call(ctx, k, kek.OpWrap, by.id, func(ctx context.Context) ([]byte, error) {
		answer, err := k.client.WrapKey(ctx, k.config.Key, by.id, parameters(by.algorithm, dek), nil)
		if err != nil {
			return nil, err
		}
		return answer.Result, k.isOf(answer.KID, by.id)
	}, nil)
	if err != nil {
		return kek.Wrapping{}, err
	}
	if !isWrapped(by.algorithm, len(wrapped)) {
		err := fmt.Errorf("the vault answered %d wrapped bytes, which is no size of %s: is it an RSA key of 2048, 3072 or 4096 bits?", len(wrapped), by.algorithm)
		return kek.Wrapping{}, k.fail(kek.OpWrap, kek.Unavailable, by.id, err)
	}
	return kek.Wrapping{Version: by.id, Algorithm: by.algorithm, Ciphertext: wrapped}, nil
}

// Unwrap decrypts a wrapping by the version that it names, however old. What no
// version of a key in a vault can have made is Corrupt without asking.
func (k *KEK) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	if err := k.begin(ctx); err != nil {
		return nil, k.fail(kek.OpUnwrap, kek.Unavailable, "", err)
	}
	if !versionForm.MatchString(w.Version) || !isWrapped(w.Algorithm, len(w.Ciphertext)) || len(w.Annotations) != 0 {
		err := fmt.Errorf("the wrapping is no Key Vault's: algorithm %.64q, %d annotations, %d bytes", w.Algorithm, len(w.Annotations), len(w.Ciphertext))
		return nil, k.fail(kek.OpUnwrap, kek.Corrupt, w.Version, err)
	}
	dek, err := call(ctx, k, kek.OpUnwrap, w.Version, func(ctx context.Context) ([]byte, error) {
		answer, err := k.client.UnwrapKey(ctx, k.config.Key, w.Version, parameters(w.Algorithm, w.Ciphertext), nil)
		if err != nil {
			return nil, err
		}
		if err := k.isOf(answer.KID, w.Version); err != nil {
			clear(answer.Result)
			return nil, err
		}
		return answer.Result, nil
	}, func(dek []byte) { clear(dek) })
	if err != nil {
		return nil, err
	}
	if len(dek) != kek.DEKSize {
		clear(dek)
		err := fmt.Errorf("what was wrapped has %d bytes, want %d", len(dek), kek.DEKSize)
		return nil, k.fail(kek.OpUnwrap, kek.Corrupt, w.Version, err)
	}
	return dek, nil
}

// Version returns the latest version that is believed. When PollInterval has passed
// it asks the vault; a version that the vault names for the first time is believed
// when it names it again, at a later call. The first version of all is believed at
// once.
func (k *KEK) Version(ctx context.Context) (string, error) {
	ctx, end := k.bound(ctx)
	defer end()
	by, err := k.poll(ctx)
	return by.id, err
}

// Created asks the vault when a version was made.
func (k *KEK) Created(ctx context.Context, id string) (time.Time, error) {
	if !versionForm.MatchString(id) {
		return time.Time{}, k.fail(kek.OpVersion, kek.NotFound, id, errors.New("no version of a key in a vault has such a name"))
	}
	found, err := k.get(ctx, id)
	return found.created, err
}

// Close ends the calls that are under way, and returns when nothing of them is left.
// It never fails.
func (k *KEK) Close() error {
	k.mu.Lock()
	k.close()
	k.mu.Unlock()
	k.running.Wait()
	k.http.CloseIdleConnections()
	return nil
}

// begin refuses calls of a context that has ended and those after Close.
func (k *KEK) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if k.closing.Err() != nil {
		return errClosed
	}
	return nil
}

func (k *KEK) fail(op string, class kek.Class, version string, err error) error {
	return &kek.Error{Class: class, Op: op, KEK: k.config.Name, Version: version, Err: err}
}

// isOf says whether an answer is of the version that was asked for.
func (k *KEK) isOf(id *azkeys.ID, version string) error {
	if id == nil {
		return errForeign
	}
	got, err := parseKeyID(string(*id), k.host, k.config.Key)
	if err != nil {
		return err
	}
	if got != version {
		return errForeign
	}
	return nil
}

// parameters are those of a wrapKey or unwrapKey.
func parameters(algorithm string, value []byte) azkeys.KeyOperationParameters {
	a := azkeys.EncryptionAlgorithm(algorithm)
	return azkeys.KeyOperationParameters{Algorithm: &a, Value: value}
}

// isWrapped says whether a wrapped DEK can have a size.
func isWrapped(algorithm string, size int) bool {
	switch algorithm {
	case AlgorithmRSA:
		return slices.Contains(sizesRSA, size)
	case AlgorithmAES:
		return size == sizeAES
	}
	return false
}
