package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// claimTime is how long rotations leave a record alone that is being removed. It protects
// nothing: a record that changed meanwhile is not removed.
const claimTime = 15 * time.Minute

// Collect removes the records that a plan found due, after looking again. The plan is
// changed into what was done. The error says that nothing was removed.
func (c *Collector) Collect(ctx context.Context, plan *Collection) (err error) {
	b := &burials{Collector: c, out: plan, use: uses{}}
	defer b.release(ctx)
	if err := b.claim(ctx); err != nil || len(b.claimed) == 0 {
		return err
	}
	if err := c.look(ctx, b.use, plan); err != nil {
		return fmt.Errorf("collecting: %w", err)
	}
	// What was written while history was read, which may have taken long.
	if err := b.catchUp(ctx); err != nil {
		return fmt.Errorf("collecting: reading what was written meanwhile: %w", err)
	}
	b.bury(ctx)
	plan.Unchecked = b.watch(ctx)
	return nil
}

// burials is the work of Collect.
type burials struct {
	*Collector
	out     *Collection
	use     uses
	claimed []*dek.Burial
	buried  []*dek.Burial
}

// claim claims the records that are due. One that cannot be claimed has changed since the
// plan was made, or is being changed: it is left.
func (b *burials) claim(ctx context.Context) error {
	tools := dek.BurialTools{Store: b.config.Store, Auditor: b.config.Auditor, Now: b.engine.Now}
	for _, r := range b.out.With(FateDue) {
		if ctx.Err() != nil {
			return fmt.Errorf("collecting: %w", ctx.Err())
		}
		burial, err := tools.Claim(ctx, r.Listed, claimTime)
		if err != nil {
			r.Fate, r.Err = FateFailed, err
			continue
		}
		b.claimed = append(b.claimed, burial)
		b.use[r.ID] = r
	}
	return nil
}

// catchUps is how often it is looked for what was written meanwhile, at most: each time
// takes a fraction of the time that the one before took.
const catchUps = 3

// catchUp looks at what was written since everything was looked at.
func (b *burials) catchUp(ctx context.Context) error {
	w := &walker{engine: b.engine, look: b.use.note}
	for range catchUps {
		_, to, err := w.history(ctx, everything, b.out.Revision+1)
		if err != nil {
			return err
		}
		if to == b.out.Revision {
			return nil
		}
		b.out.Revision = to
	}
	return nil
}

// bury removes what is still due.
func (b *burials) bury(ctx context.Context) {
	var left []*dek.Burial
	for _, burial := range b.claimed {
		r := b.use[burial.ID()]
		switch {
		case r.used():
			r.Fate = FateUsed
		case ctx.Err() != nil:
			r.Fate, r.Err = FateFailed, ctx.Err()
		}
		if r.Fate != FateDue {
			left = append(left, burial)
			continue
		}
		err := burial.Bury(ctx)
		switch {
		case err == nil:
			r.Fate = FateBuried
			b.buried = append(b.buried, burial)
			b.engine.Logger.Info("a record was removed from the keyring for good", "dek", r.ID.String())
		case errors.Is(err, dek.ErrStoreUnavailable): // it may have been removed
			r.Fate, r.Err = FateFailed, err
			b.buried = append(b.buried, burial)
		default:
			r.Fate, r.Err = FateFailed, err
			left = append(left, burial)
		}
	}
	b.claimed = left
}

// release gives claims back.
func (b *burials) release(ctx context.Context) {
	for _, burial := range b.claimed {
		if err := burial.Release(ctx); err != nil && !errors.Is(err, dek.ErrConflict) { // somebody else wrote it: the claim is gone
			b.engine.Logger.Warn("a claim ends by itself", "dek", burial.ID().String(), "error", err.Error())
		}
	}
}

// watch looks at what was written in the moment of the removal and for some time after it,
// and puts back what is needed, or everything if etcd is not where it was. It does so when
// ctx has ended, too. The error says why it is not known whether something is needed.
func (b *burials) watch(ctx context.Context) error {
	if len(b.buried) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.config.Settle+b.engine.Patience)
	defer cancel()
	settled := time.NewTimer(b.config.Settle)
	defer settled.Stop()
	w := &walker{engine: b.engine, look: b.use.note}
	for last := false; ; {
		_, to, err := w.history(ctx, everything, b.out.Revision+1)
		b.putBack(ctx, errors.Is(err, errFell))
		if err != nil {
			return fmt.Errorf("reading what was written meanwhile: %w", err)
		}
		b.out.Revision = to
		if last {
			return nil
		}
		select {
		case <-settled.C:
			last = true
		case <-time.After(askEvery):
		}
	}
}

// putBack puts back the records that are needed after all, or all.
func (b *burials) putBack(ctx context.Context, all bool) {
	for _, burial := range b.buried {
		r := b.use[burial.ID()]
		if r.Fate == FatePutBack || !r.used() && !all {
			continue
		}
		if err := burial.Undo(ctx); err != nil {
			r.Fate, r.Err = FateFailed, err
			continue
		}
		r.Fate, r.Err = FatePutBack, nil
		b.engine.Logger.Warn("a record that was removed was put back", "dek", r.ID.String())
	}
}
