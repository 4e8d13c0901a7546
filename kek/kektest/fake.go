package kektest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/kek"
)

// fakeAlgorithm is the Algorithm of a Fake's wrappings.
const fakeAlgorithm = "kektest"

// ErrScripted is the cause of every failure that a test asked a Fake for.
var ErrScripted = errors.New("the test asked for this failure")

// Fake is a KEK in memory that a test can stop, fail and count. It passes Run. All
// its methods are safe for concurrent use.
//
// Its wrappings depend on its name and version only: two Fakes of one name stand
// for two processes that use the same key. It protects nothing.
type Fake struct {
	name string

	mu      sync.Mutex // guards all below
	version string
	made    []string // all versions that were current, in their order
	closed  bool
	gone    map[string]kek.Class // what Unwrap by a version answers
	ops     map[string]*opState
	swap    func(dek []byte) []byte
	changed chan struct{} // closed and replaced when an opState's counts change
}

// opState is what was done to, and scripted for, one operation.
type opState struct {
	calls   int
	waiting int
	gate    chan struct{} // not nil: calls wait until it is closed
	class   kek.Class     // not zero: calls fail
	times   int           // how many of them; negative: all
}

var _ kek.Dated = (*Fake)(nil)

// NewFake returns a Fake that works until it is told otherwise.
func NewFake(name, version string) *Fake {
	f := &Fake{name: name, version: version, made: []string{version}, gone: map[string]kek.Class{}, changed: make(chan struct{})}
	f.ops = map[string]*opState{}
	for _, op := range allOps {
		f.ops[op] = &opState{}
	}
	return f
}

// Wrap implements kek.KEK.
func (f *Fake) Wrap(ctx context.Context, dek []byte) (kek.Wrapping, error) {
	version, err := f.begin(ctx, kek.OpWrap)
	if err != nil {
		return kek.Wrapping{}, err
	}
	if len(dek) != kek.DEKSize {
		err := fmt.Errorf("the DEK has %d bytes", len(dek))
		return kek.Wrapping{}, f.fail(kek.OpWrap, kek.Corrupt, version, err)
	}
	wrapped := f.aead(version).Seal(nil, nil, dek, nil)
	return kek.Wrapping{Version: version, Algorithm: fakeAlgorithm, Ciphertext: wrapped}, nil
}

// Unwrap implements kek.KEK. It can unwrap by every version but those given to
// FailVersion, and by those that were never current it fails as Corrupt, unless
// another Fake of this name made the wrapping.
func (f *Fake) Unwrap(ctx context.Context, w kek.Wrapping) ([]byte, error) {
	if _, err := f.begin(ctx, kek.OpUnwrap); err != nil {
		return nil, err
	}
	f.mu.Lock()
	class, swap := f.gone[w.Version], f.swap
	f.mu.Unlock()
	if class != 0 {
		return nil, f.fail(kek.OpUnwrap, class, w.Version, ErrScripted)
	}
	if w.Algorithm != fakeAlgorithm {
		return nil, f.fail(kek.OpUnwrap, kek.Corrupt, w.Version, errors.New("the wrapping is no Fake's"))
	}
	dek, err := f.aead(w.Version).Open(nil, nil, w.Ciphertext, nil)
	if err != nil || len(dek) != kek.DEKSize {
		return nil, f.fail(kek.OpUnwrap, kek.Corrupt, w.Version, errors.New("the wrapping does not authenticate"))
	}
	if swap != nil {
		dek = swap(dek)
	}
	return dek, nil
}

// Version implements kek.KEK.
func (f *Fake) Version(ctx context.Context) (string, error) {
	return f.begin(ctx, kek.OpVersion)
}

// fakeEpoch is when a Fake's first version was made; the others follow hour by hour.
var fakeEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Created implements kek.Dated. It knows the versions that this Fake was made with
// or rotated to, and counts as a call of kek.OpVersion.
func (f *Fake) Created(ctx context.Context, version string) (time.Time, error) {
	if _, err := f.begin(ctx, kek.OpVersion); err != nil {
		return time.Time{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.Index(f.made, version)
	if at < 0 {
		return time.Time{}, f.fail(kek.OpVersion, kek.NotFound, version, errors.New("this Fake never had it"))
	}
	return fakeEpoch.Add(time.Duration(at) * time.Hour), nil
}

// Close implements kek.KEK.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// begin counts a call, waits while the operation is blocked, and then returns the
// current version or the failure that was scripted.
func (f *Fake) begin(ctx context.Context, op string) (version string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state := f.ops[op]
	state.calls++
	f.notify()
	if gate := state.gate; gate != nil {
		state.waiting++
		f.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
		f.mu.Lock()
		state.waiting--
		f.notify()
	}
	switch {
	case ctx.Err() != nil:
		return "", f.fail(op, kek.Unavailable, "", ctx.Err())
	case f.closed:
		return "", f.fail(op, kek.Unavailable, "", errors.New("the KEK is closed"))
	case state.class != 0 && state.times != 0:
		if state.times > 0 {
			state.times--
		}
		return "", f.fail(op, state.class, f.version, ErrScripted)
	}
	return f.version, nil
}

// notify wakes those who wait for a change of the counts. The caller holds mu.
func (f *Fake) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Fake) fail(op string, class kek.Class, version string, err error) error {
	return &kek.Error{Class: class, Op: op, KEK: f.name, Version: version, Err: err}
}

func (f *Fake) aead(version string) cipher.AEAD {
	key := sha256.Sum256([]byte("kektest\x00" + f.name + "\x00" + version))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}
