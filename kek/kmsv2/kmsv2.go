// Package kmsv2 is a KEK behind a Kubernetes KMS v2 plugin: a process on the same
// machine that encrypts and decrypts over a unix socket
// (https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/, API
// k8s.io/kms/apis/v2). So every KMS that has such a plugin for kube-apiserver works
// for etcdseal, with the plugin as it is.
//
// The package treats a plugin as kube-apiserver does: the same API versions, the same
// limits of what it may answer, the same default timeout, and a wrapping is taken
// only if its key id is the one that the plugin's status names. Beyond that it
//
//   - believes another key id only when polls have named it repeatedly, so that a
//     plugin which wavers does not keep the keyring busy with rewrapping;
//   - refuses an answer that holds the DEK itself;
//   - keeps what the plugin says out of errors and logs but for a short printable
//     text, and that too if it holds what the plugin was given.
//
// The threat that it covers is the KMS's to define. It does not cover a plugin that is
// not what it claims to be: whoever can replace its socket gets every DEK that is
// wrapped from then on. An abstract socket (unix:///@name) has no file modes at all.
//
// DEK bytes pass through gRPC, whose buffers cannot be wiped. What this package makes
// itself is.
package kmsv2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/etcdseal/etcdseal/kek"
)

// Algorithm is the only value of Wrapping.Algorithm. What the plugin does inside is
// its own affair.
const Algorithm = "KMSv2"

// Defaults of Config.
const (
	DefaultTimeout      = 3 * time.Second // kube-apiserver's
	DefaultPollInterval = time.Minute     // kube-apiserver's
)

// tries is how many timeouts Wrap and Unwrap may take in all: two of their own
// request, and one to ask for the plugin's status.
const tries = 3

var errClosed = errors.New("the KEK is closed")

// Config says where the plugin is. All but Endpoint has a usable zero value.
type Config struct {
	// Name is what errors and logs call the KEK: its name in the configuration.
	// May be empty.
	Name string
	// Endpoint is the plugin's socket: unix:// and an absolute path, or unix:///@
	// and the name of an abstract socket, as in kube-apiserver's
	// EncryptionConfiguration.
	Endpoint string
	// Timeout bounds each request to the plugin; Wrap, Unwrap and Version take at
	// most three times that. 0 is DefaultTimeout.
	Timeout time.Duration
	// PollInterval is how often the plugin is asked for its status, give or take a
	// tenth. While it fails it is asked each 10 seconds, if that is more often. 0
	// is DefaultPollInterval.
	PollInterval time.Duration
	// Logger gets changes of the plugin's key and health at Info and Warn, single
	// requests at Debug; nil is none.
	Logger *slog.Logger
}

// KEK is a plugin's key. It is safe for concurrent use. It asks the plugin for its
// status in the background from New until Close.
type KEK struct {
	config  Config
	log     *slog.Logger
	plugin  kmsapi.KeyManagementServiceClient
	link    *link
	closed  atomic.Bool
	close   sync.Once
	stop    context.CancelFunc
	polling sync.WaitGroup
	turn    chan struct{} // holds one while somebody asks for the status

	mu       sync.Mutex // guards all below
	follower follower
	asked    int      // how often there was a status, or a failure to get one
	sick     *failure // the last time, nil if the plugin was well
}

var _ kek.KEK = (*KEK)(nil)

// New makes a KEK and begins to connect. The plugin need not run yet: until it does,
// calls fail as Unavailable. The error says what is wrong with the Config, or with what
// is at the socket's path.
func New(cfg Config) (*KEK, error) {
	address, err := parseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("using KMS plugin: %w", err)
	}
	if cfg.Timeout < 0 || cfg.PollInterval < 0 {
		return nil, errors.New("using KMS plugin: a time is negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if err := checkSocket(address); err != nil {
		return nil, fmt.Errorf("using KMS plugin: %w", err)
	}
	link, err := connect(address, cfg.Timeout)
	if err != nil {
		return nil, fmt.Errorf("using KMS plugin: %w", err)
	}
	return start(cfg, kmsapi.NewKeyManagementServiceClient(link.conn), link), nil
}

// start makes a KEK of a client and begins to poll.
func start(cfg Config, plugin kmsapi.KeyManagementServiceClient, link *link) *KEK {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.PollInterval == 0 {
		cfg.PollInterval = DefaultPollInterval
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &KEK{
		config: cfg, log: log.With("kek", cfg.Name), plugin: plugin, link: link,
		stop: cancel, turn: make(chan struct{}, 1),
	}
	k.turn <- struct{}{} // the first poll's, so that callers wait for it
	k.polling.Go(func() { k.follow(ctx) })
	return k
}

// Wrap has the plugin encrypt a DEK. The plugin must be well, and must do it by the
// key id that Version returns.
func (k *KEK) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	ctx, end, err := k.begin(ctx, kek.OpWrap)
	if err != nil {
		return kek.Wrapping{}, err
	}
	defer end()
	if len(dek) != kek.DEKSize {
		err := fmt.Errorf("the DEK has %d bytes, want %d", len(dek), kek.DEKSize)
		return kek.Wrapping{}, k.fail(kek.OpWrap, "", &failure{kek.Corrupt, err})
	}
	version, failed := k.current(ctx)
	if failed != nil {
		return kek.Wrapping{}, k.fail(kek.OpWrap, "", failed)
	}
	*kek.TraceFrom(ctx) = kek.Trace{KeyID: version}
	answer, failed := k.encrypt(ctx, dek)
	if failed != nil {
		return kek.Wrapping{}, k.fail(kek.OpWrap, version, failed)
	}
	kek.TraceFrom(ctx).KeyID = answer.GetKeyId()
	if answer.GetKeyId() != version {
		if failed := k.confirm(ctx, answer.GetKeyId()); failed != nil {
			return kek.Wrapping{}, k.fail(kek.OpWrap, version, failed)
		}
	}
	return kek.Wrapping{
		Version: answer.GetKeyId(), Algorithm: Algorithm,
		Ciphertext: answer.GetCiphertext(), Annotations: annotationsOf(answer),
	}, nil
}

// Unwrap has the plugin decrypt a wrapping, with the key id and the annotations that
// came with it. Which key ids it knows, and whether it cares for them, is the
// plugin's; the plugin need not be well. A wrapping that no plugin may have made is
// Corrupt without asking.
func (k *KEK) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	ctx, end, err := k.begin(ctx, kek.OpUnwrap)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := checkWrapping(w); err != nil {
		return nil, k.fail(kek.OpUnwrap, w.Version, &failure{kek.Corrupt, err})
	}
	*kek.TraceFrom(ctx) = kek.Trace{KeyID: w.Version}
	dek, failed := k.decrypt(ctx, w)
	if failed != nil {
		return nil, k.fail(kek.OpUnwrap, w.Version, failed)
	}
	if len(dek) != kek.DEKSize {
		clear(dek)
		err := fmt.Errorf("the plugin decrypts to %d bytes, want %d", len(dek), kek.DEKSize)
		return nil, k.fail(kek.OpUnwrap, w.Version, &failure{kek.Corrupt, err})
	}
	return dek, nil
}

// Version returns the key id that is believed. It is the last poll's result and asks
// the plugin only if that failed, or there was none yet.
func (k *KEK) Version(ctx context.Context) (string, error) {
	ctx, end, err := k.begin(ctx, kek.OpVersion)
	if err != nil {
		return "", err
	}
	defer end()
	version, failed := k.current(ctx)
	if failed != nil {
		return "", k.fail(kek.OpVersion, "", failed)
	}
	return version, nil
}

// Close ends the polling and the connection, and with it the requests in flight.
func (k *KEK) Close() error {
	var err error
	k.close.Do(func() {
		k.closed.Store(true)
		k.stop()
		k.polling.Wait()
		if k.link != nil {
			err = k.link.conn.Close()
		}
	})
	return err
}

// begin bounds a call, unless its context has ended or the KEK is closed.
func (k *KEK) begin(ctx context.Context, op string) (context.Context, context.CancelFunc, error) {
	if k.closed.Load() {
		return nil, nil, k.fail(op, "", &failure{kek.Unavailable, errClosed})
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, k.fail(op, "", &failure{kek.Unavailable, err})
	}
	ctx, end := context.WithTimeout(ctx, tries*k.config.Timeout)
	return ctx, end, nil
}

func (k *KEK) fail(op, version string, f *failure) error {
	return &kek.Error{Class: f.class, Op: op, KEK: k.config.Name, Version: version, Err: f.err}
}

// encrypt asks for a wrapping and checks the answer.
func (k *KEK) encrypt(ctx context.Context, dek []byte) (*kmsapi.EncryptResponse, *failure) {
	answer, failed := request(k, ctx, kek.OpWrap, dek, func(ctx context.Context, c *call) (*kmsapi.EncryptResponse, error) {
		return k.plugin.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: dek, Uid: c.uid}, c.options()...)
	})
	if failed != nil {
		return nil, failed
	}
	err := checkAnswer(answer)
	leaks := bytes.Contains(answer.GetCiphertext(), dek)
	for _, value := range answer.GetAnnotations() {
		leaks = leaks || bytes.Contains(value, dek)
	}
	if err == nil && leaks {
		err = errors.New("it holds the DEK as it was given: the plugin does not encrypt")
	}
	if err != nil {
		return nil, &failure{kek.Unavailable, fmt.Errorf("the plugin's answer is not one that KMS v2 allows: %w", err)}
	}
	return answer, nil
}

// decrypt asks for a DEK.
func (k *KEK) decrypt(ctx context.Context, w kek.Wrapping) ([]byte, *failure) {
	answer, failed := request(k, ctx, kek.OpUnwrap, w.Ciphertext, func(ctx context.Context, c *call) (*kmsapi.DecryptResponse, error) {
		return k.plugin.Decrypt(ctx, &kmsapi.DecryptRequest{
			Ciphertext: w.Ciphertext, Uid: c.uid, KeyId: w.Version, Annotations: w.Annotations,
		}, c.options()...)
	})
	if failed != nil {
		return nil, failed
	}
	return answer.GetPlaintext(), nil
}
