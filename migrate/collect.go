package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Defaults of CollectorConfig.
const (
	DefaultMargin = 24 * time.Hour
	DefaultSettle = 5 * time.Second
)

// CollectorConfig is what a Collector works with.
type CollectorConfig struct {
	// KV is the etcd, without a proxy in between; it also watches. Required.
	KV clientv3.KV
	// Store is the keyring, in the same etcd, and Keyring its name. Required.
	Store   dek.Burier
	Keyring string
	// Auditor writes down each removal before it is done; nil: nobody does.
	Auditor dek.Auditor

	// Margin is how long after sealUntil a DEK may be removed: more than clocks
	// differ, and than a sealed value is on its way to etcd. 0 is DefaultMargin.
	Margin time.Duration
	// Settle is how long it is watched, after records were removed, whether a value
	// under them is written all the same; 0 is DefaultSettle.
	Settle time.Duration
	// Timeout bounds one call to etcd, Patience how long etcd may fail on end; 0
	// are the defaults of Config.
	Timeout, Patience time.Duration
	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Progress is called now and then, by one goroutine at a time; nil: never.
	Progress func(Progress)
	// Logger gets changes of state; nil is none.
	Logger *slog.Logger
}

// Collector removes the records of DEKs that nothing needs any more. It needs no KEK.
//
// What decides is what is in etcd, all of it and not what is under a rule: values may lie
// under a rule that there is no more, or that another process has. A record goes only if
//
//   - nobody seals with its DEK: sealUntil is past by more than Margin;
//   - no live value is under it, and no value in any revision that etcd retains;
//   - that was found out after the record was claimed (dek.Burial), so that an etcd that is
//     put back to an older state, a rotation, or another Collector makes the removal fail;
//   - what was written while that was found out was looked at, too.
//
// What is written in the moment of the removal and for Settle after it is looked at then:
// a value under the DEK has the record put back at once. A value that is written later
// still, by somebody who put an old envelope back, cannot be opened; dek.Manager.Import
// puts the record back from an export.
type Collector struct {
	config CollectorConfig
	engine *Engine
}

// NewCollector returns a Collector. The error says what is wrong with the config.
func NewCollector(c CollectorConfig) (*Collector, error) {
	if c.KV == nil || c.Store == nil || c.Keyring == "" {
		return nil, errors.New("making collector: etcd, a keyring's store and its name are needed")
	}
	if min(c.Margin, c.Settle) < 0 {
		return nil, errors.New("making collector: a time is negative")
	}
	setDefault(&c.Margin, DefaultMargin)
	setDefault(&c.Settle, DefaultSettle)
	engine := &Engine{Config: Config{KV: c.KV, Timeout: c.Timeout, Patience: c.Patience, Now: c.Now, Progress: c.Progress, Logger: c.Logger}}
	engine.complete()
	c.Now = engine.Now
	return &Collector{config: c, engine: engine}, nil
}

// Fate is what is, or was, to be done about a record.
type Fate string

// The fates.
const (
	FateSeals   Fate = "seals"    // its DEK may be sealed with, or could a short time ago
	FateUsed    Fate = "used"     // values are under its DEK
	FateStrange Fate = "strange"  // it cannot be read, so that nothing is known of it
	FateDue     Fate = "due"      // nothing needs it
	FateBuried  Fate = "removed"  // it was removed, and a tombstone left
	FatePutBack Fate = "put back" // it was removed, and put back since a value was written under it
	FateFailed  Fate = "failed"   // it was to be removed and is there, or not known to be removed: see Err
)

// Collected is one record and what is known of it.
type Collected struct {
	dek.Listed
	Fate Fate
	Live int64  // values under it
	Past int64  // values under it in revisions that etcd retains, as far as they were looked at
	Key  []byte // of one of these values
	Err  error
}

// Collection is what a Collector found, or did.
type Collection struct {
	Revision  int64 // the latest one looked at; 0 if there was nothing to look for
	Compacted int64 // the earliest one that etcd retains
	Records   []*Collected
	// Unchecked says why it is not known whether a value was written under a record
	// in the moment when it was removed; nil if that is known.
	Unchecked error
}

// With returns the records that have a fate.
func (c *Collection) With(fate Fate) []*Collected {
	return slices.DeleteFunc(slices.Clone(c.Records), func(r *Collected) bool { return r.Fate != fate })
}

// Plan looks which records nothing needs, and changes nothing.
func (c *Collector) Plan(ctx context.Context) (*Collection, error) {
	listing, err := c.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("collecting: %w", err)
	}
	out := &Collection{}
	use := uses{}
	now := c.engine.Now()
	for _, listed := range listing.Records {
		r := &Collected{Listed: listed, Fate: FateDue}
		switch {
		case listed.Err != nil:
			r.Fate, r.Err = FateStrange, listed.Err
		case !now.After(listed.Record.SealUntil.Add(c.config.Margin)):
			r.Fate = FateSeals
		default:
			use[r.ID] = r
		}
		out.Records = append(out.Records, r)
	}
	if err := c.look(ctx, use, out); err != nil {
		return nil, fmt.Errorf("collecting: %w", err)
	}
	return out, nil
}

func (c *Collector) list(ctx context.Context) (*dek.Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, c.engine.Timeout)
	defer cancel()
	return dek.List(ctx, c.config.Store, c.config.Keyring)
}

// uses are records for whose values somebody looks.
type uses map[envelope.ID]*Collected

// errNewer says that nobody here knows what a value needs.
var errNewer = errors.New("the value was written by a newer etcdseal, which may need any DEK: collect with that one")

// note takes in a value.
func (u uses) note(_ context.Context, kv *mvccpb.KeyValue, place Place) error {
	if !envelope.Is(kv.Value) {
		return nil
	}
	id, err := envelope.Parse(kv.Value)
	if newer, ok := errors.AsType[*envelope.VersionError](err); ok {
		return fmt.Errorf("at key %q: %w (%w)", kv.Key, errNewer, newer)
	}
	r := u[id]
	if err != nil || r == nil { // what is truncated opens under no DEK
		return nil
	}
	if !r.used() {
		r.Key = slices.Clone(kv.Key)
	}
	if place == Live {
		r.Live++
	} else {
		r.Past++
	}
	return nil
}

func (r *Collected) used() bool { return r.Live+r.Past > 0 }

// everything is the range of all keys.
var everything = spanOf("")

// look looks for values under records, in everything that etcd has and retains.
func (c *Collector) look(ctx context.Context, use uses, out *Collection) error {
	if len(use) == 0 {
		return nil
	}
	if err := c.engine.tellsAll(ctx); err != nil {
		return err
	}
	w := &walker{engine: c.engine, look: use.note}
	revision, err := w.live(ctx, everything, 0)
	if err != nil {
		return err
	}
	out.Compacted, out.Revision, err = w.history(ctx, everything, 1)
	if err == nil && out.Revision < revision {
		err = errFell
	}
	if err != nil {
		return fmt.Errorf("reading history: %w", err)
	}
	for _, r := range use {
		if r.used() {
			r.Fate = FateUsed
		}
	}
	return nil
}
