// Package migrate changes what is in etcd already: it seals plaintext (encrypt), opens
// sealed values for good (decrypt) and seals them under a fresh DEK (reencrypt), while
// clients go on to read and write.
//
// It guarantees that
//
//   - a value is replaced only by its own other form: each write compares the key's
//     mod_revision, so that one which changed meanwhile is looked at again and never
//     overwritten, and two that run at once do no harm;
//   - no value is written whose DEK's record is not in the same etcd: each transaction
//     compares that the record is there, which etcd decides together with the writes;
//   - leases stay as they are;
//   - there is no state but etcd's own, so what was killed goes on when it is run again;
//   - a run says that it is done only after a pass over everything that found nothing
//     left to do, and every value that it could not change is named.
//
// What a run replaced stays in etcd's history until it is compacted, and on disk until
// each member is defragmented. The package prints nothing, and no error of it holds a
// value.
package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Kind is what a Job does to values.
type Kind int

// The kinds.
const (
	// Encrypt seals plaintext under rules that seal. Empty values are left.
	Encrypt Kind = iota + 1
	// Decrypt opens sealed values under rules that do not seal.
	Decrypt
	// Reencrypt seals sealed values again, with a DEK of this process's making.
	Reencrypt
)

// String returns the verb.
func (k Kind) String() string {
	return map[Kind]string{Encrypt: "encrypt", Decrypt: "decrypt", Reencrypt: "reencrypt"}[k]
}

// Defaults of Config.
const (
	DefaultPatience  = time.Minute
	DefaultTimeout   = 20 * time.Second
	DefaultMaxPasses = 8
	// DefaultQuota is etcd's own, for one that does not say which it has.
	DefaultQuota = 2 << 30
)

// Errors to be told apart with errors.Is.
var (
	// ErrNoRule says that no rule of the right kind is in reach of a Job.
	ErrNoRule = errors.New("no rule")
	// ErrStillSealing says that values would be sealed again as they are opened.
	ErrStillSealing = errors.New("a rule still seals")
	// ErrQuota says that etcd's database is too near its quota to go on.
	ErrQuota = errors.New("etcd's database is too near its quota: compact, defragment each member (--purge does both), and run this again, which goes on where it stopped")
	// ErrUnfinished says that somebody goes on to write what a Job is there to
	// replace.
	ErrUnfinished = errors.New("values of the old form go on being written, by something that does not go through an etcdseal with the same rules: run this again when that has ended")
)

// Rule is what a rule of the configuration means here. The longest prefix wins.
type Rule struct {
	Prefix string
	Sealer *dek.Sealer // nil: the rule does not seal
}

// Keyring is what a run needs of a *dek.Manager.
type Keyring interface {
	OpenKey(ctx context.Context, id envelope.ID) (*envelope.Key, error)
	Restore(ctx context.Context, recordKey []byte) error
}

// Config is what an Engine works with.
type Config struct {
	// KV is the etcd, without a proxy in between. Required.
	KV clientv3.KV
	// Maintenance says how large the databases at Endpoints are; nil: nobody
	// looks.
	Maintenance clientv3.Maintenance
	Endpoints   []string
	// Keyring and Store are the keyring. Required.
	Keyring Keyring
	Store   dek.Store
	// Rules are those of the configuration. Required.
	Rules []Rule
	// Reserved is the keyring's prefix, which is left alone; "" is none.
	Reserved string

	// Rate is how many values a second are written at most; 0 is no bound.
	Rate int
	// Quota is etcd's, in bytes, for one that does not say it (before 3.6); 0
	// is DefaultQuota.
	Quota int64
	// Patience is how long etcd and the KEKs may fail on end before a run
	// stops; 0 is DefaultPatience.
	Patience time.Duration
	// Timeout bounds one call to etcd; 0 is DefaultTimeout.
	Timeout time.Duration
	// MaxPasses is how many passes there are at most; 0 is DefaultMaxPasses.
	MaxPasses int
	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Progress is called now and then, by one goroutine at a time; nil: never.
	Progress func(Progress)
	// Logger gets changes of state; nil is none.
	Logger *slog.Logger
}

// Job is one thing to do.
type Job struct {
	Kind Kind
	// Prefix narrows the Job to keys that begin with it.
	Prefix string
	// OlderThan has Reencrypt take the values whose DEK was made before.
	// Required for it unless DEK is set, and not in the future.
	OlderThan time.Time
	// DEK has Reencrypt take the values under one DEK.
	DEK envelope.ID
	// DryRun only looks.
	DryRun bool
}

// Progress is how far a run is.
type Progress struct {
	Pass    int   // from 1
	Scanned int64 // keys looked at in this pass
	Total   int64 // keys there were at its start
	Changed int64 // values changed in all passes
}

// Result is what a run did. Counts of keys and values are those of the last pass, but
// for what was changed.
type Result struct {
	Kind         Kind
	DryRun       bool
	Passes       int
	Revision     int64 // that the last pass looked at
	Keys         int64 // under the rules
	Done         int64 // in the form that was wanted already
	Empty        int64 // without a value
	Others       int64 // not what the Job is about: another DEK, another rule
	Changed      int64 // values written
	ChangedBytes int64 // what they were before
	Left         int64 // found but not changed, without those that are Problems
	LeftBytes    int64 // their size; in a dry run: what would be read and written
	Retried      int64 // writes that found a key changed, or did not get an answer
	Problems     []Problem
	Omitted      int64 // further Problems, for which there was no room
	Estimate     *Estimate
	Elapsed      time.Duration
}

// Clean reports whether nothing is left and nothing was wrong.
func (r *Result) Clean() bool {
	return len(r.Problems) == 0 && r.Omitted == 0 && (r.DryRun || r.Left == 0)
}

// maxProblems bounds the memory for Problems.
const maxProblems = 100_000

// Problem is a value that was left as it is.
type Problem struct {
	Key []byte
	Err error
}

// Engine does Jobs. It is safe for concurrent use.
type Engine struct {
	Config
	rules ruleSet
}

// New returns an Engine. The error says what is wrong with the Config.
func New(c Config) (*Engine, error) {
	if c.KV == nil || c.Keyring == nil || c.Store == nil || len(c.Rules) == 0 {
		return nil, errors.New("making engine: etcd, a keyring, its store and rules are needed")
	}
	if c.Rate < 0 || c.Quota < 0 {
		return nil, errors.New("making engine: the rate or the quota is negative")
	}
	c.complete()
	return &Engine{Config: c, rules: newRuleSet(c.Rules, c.Reserved)}, nil
}

// complete fills in the defaults.
func (c *Config) complete() {
	setDefault(&c.Quota, DefaultQuota)
	setDefault(&c.Patience, DefaultPatience)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.MaxPasses, DefaultMaxPasses)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Run does a Job. The Result is never nil and true also when there is an error: what was
// done so far stays valid, and running the Job again goes on. Problems are no error.
func (e *Engine) Run(ctx context.Context, job Job) (*Result, error) {
	r := &run{engine: e, job: job, result: &Result{Kind: job.Kind, DryRun: job.DryRun}, made: map[envelope.ID]time.Time{}, settled: map[int64]bool{}, away: map[string]time.Time{}}
	start := e.Now()
	defer func() { r.result.Elapsed = e.Now().Sub(start) }()
	if err := r.check(); err != nil {
		return r.result, fmt.Errorf("%s: %w", job.Kind, err)
	}
	if err := r.passes(ctx); err != nil {
		return r.result, fmt.Errorf("%s: %w", job.Kind, err)
	}
	return r.result, nil
}

// check refuses a Job that cannot end well, and finds the keys that it is about.
func (r *run) check() error {
	rules := r.engine.rules
	r.spans = rules.spans(r.job.Prefix)
	sealing, plain := rules.reach(r.job.Prefix)
	r.limiter = newLimiter(r.engine.Rate)
	switch r.job.Kind {
	case Encrypt:
		if len(sealing) == 0 {
			return fmt.Errorf("%w that says `seal: true` is about keys that begin with %q", ErrNoRule, r.job.Prefix)
		}
	case Decrypt:
		if len(sealing) > 0 {
			return fmt.Errorf("%w: say `seal: false` for %q in the configuration of every etcdseal first, and reload them; otherwise what is opened here would be sealed again", ErrStillSealing, sealing)
		}
		if len(plain) == 0 {
			return fmt.Errorf("%w that says `seal: false` is about keys that begin with %q", ErrNoRule, r.job.Prefix)
		}
	case Reencrypt:
		if len(sealing) == 0 {
			return fmt.Errorf("%w that says `seal: true` is about keys that begin with %q", ErrNoRule, r.job.Prefix)
		}
		if (r.job.DEK == envelope.ID{}) == r.job.OlderThan.IsZero() {
			return errors.New("either a time or a DEK has to be given")
		}
		if r.job.OlderThan.After(r.engine.Now()) {
			return errors.New("the time lies in the future, so that it would never end")
		}
	default:
		return fmt.Errorf("there is no kind %d", r.job.Kind)
	}
	return nil
}

// reserved reports whether a key is one of the keyring's.
func (s ruleSet) isReserved(key []byte) bool {
	return s.reserved != "" && bytes.HasPrefix(key, []byte(s.reserved))
}
