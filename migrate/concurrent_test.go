package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdseal/etcdseal/migrate"
)

// writer writes to keys of its own and knows what it has written: whatever it reads has
// to be that.
type writer struct {
	l      *lab
	p      *process
	name   int
	seal   *atomic.Bool
	acked  map[string]string
	random *rand.Rand
	writes int
}

func (w *writer) write(ctx context.Context) error {
	key := fmt.Sprintf("%sw%d/%02d", prefix, w.name, w.random.IntN(15))
	if err := w.check(ctx, key); err != nil {
		return err
	}
	if w.random.IntN(20) == 0 {
		if _, err := w.l.client.Delete(ctx, key); err != nil {
			return err
		}
		delete(w.acked, key)
		return nil
	}
	w.writes++
	value := fmt.Sprintf("%d of %d", w.writes, w.name)
	stored := value
	if w.seal.Load() {
		k, err := w.p.sealer.Key(ctx)
		if err != nil {
			return err
		}
		stored = string(k.Seal(nil, []byte(key), []byte(value)))
	}
	if _, err := w.l.client.Put(ctx, key, stored); err != nil {
		return err
	}
	w.acked[key] = value
	return nil
}

// check compares a key with what was written.
func (w *writer) check(ctx context.Context, key string) error {
	answer, err := w.l.client.Get(ctx, key)
	if err != nil {
		return err
	}
	want, there := w.acked[key]
	if !there {
		if len(answer.Kvs) > 0 {
			return fmt.Errorf("%s is back after it was deleted", key)
		}
		return nil
	}
	if len(answer.Kvs) == 0 {
		return fmt.Errorf("%s is lost", key)
	}
	got, _, err := open(ctx, w.p, key, answer.Kvs[0].Value)
	if err == nil && got != want {
		err = fmt.Errorf("%s is %q, and %q was acknowledged", key, got, want)
	}
	return err
}

// TestWriters has writers at work while everything is encrypted, encrypted again and
// decrypted, by two processes at once, each killed at random points and started again.
// Some of their transactions are carried out and not answered.
func TestWriters(t *testing.T) {
	l := newLab(t)
	l.fill(250)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var seal atomic.Bool
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	proxy := l.process()
	writers := make([]*writer, 2)
	for i := range writers {
		w := &writer{l: l, p: proxy, name: i, seal: &seal, acked: map[string]string{}, random: rand.New(rand.NewPCG(seed, uint64(i)))}
		writers[i] = w
		all.Go(func() {
			for {
				err := w.write(context.WithoutCancel(ctx))
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				if err != nil || ctx.Err() != nil {
					return
				}
			}
		})
	}
	kills := atomic.Int64{}
	for phase, job := range []migrate.Job{
		{Kind: migrate.Encrypt}, {Kind: migrate.Reencrypt}, {Kind: migrate.Decrypt}, {Kind: migrate.Encrypt},
	} {
		seal.Store(job.Kind != migrate.Decrypt)
		if job.Kind == migrate.Reencrypt {
			key, err := proxy.sealer.Key(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			job.DEK = key.ID()
		}
		var both sync.WaitGroup
		for side := range 2 {
			both.Go(func() { l.untilDone(t, job, rand.New(rand.NewPCG(seed, uint64(100+2*phase+side))), &kills) })
		}
		both.Wait()
	}
	stop()
	all.Wait()
	total := 0
	for _, w := range writers {
		total += w.writes
		for key := range w.acked {
			if err := w.check(t.Context(), key); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	}
	if final := l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt}); final.Changed != 0 {
		t.Errorf("seed %d: %d values were not sealed", seed, final.Changed)
	}
	l.records()
	t.Logf("%d writes, %d kills", total, kills.Load())
	if total == 0 || kills.Load() == 0 {
		t.Error("nothing was tested")
	}
}

// untilDone does a job that is killed three times on the way.
func (l *lab) untilDone(t *testing.T, job migrate.Job, random *rand.Rand, kills *atomic.Int64) {
	for kill := 3; ; kill-- {
		ctx, cancel := context.WithCancel(t.Context())
		at := 1 + random.IntN(4)
		kv := &hooked{KV: l.client}
		kv.before = func(n int) error {
			switch {
			case n == at && kill > 0 && at%2 == 0:
				cancel()
				return context.Canceled
			case n%13 == 3:
				return rpctypes.ErrLeaderChanged
			}
			return nil
		}
		kv.after = func(n int) error {
			switch {
			case n == at && kill > 0:
				cancel()
				return context.Canceled
			case n%17 == 2:
				return rpctypes.ErrTimeout // though it was carried out
			}
			return nil
		}
		passes := 20
		if job.Kind == migrate.Reencrypt {
			passes = 2
		}
		engine := l.engine(l.process(), job.Kind != migrate.Decrypt, func(c *migrate.Config) { c.KV, c.MaxPasses = kv, passes })
		result, err := engine.Run(ctx, job)
		killed := ctx.Err() != nil
		cancel()
		switch {
		case killed && errors.Is(err, context.Canceled):
			kills.Add(1)
		case job.Kind == migrate.Reencrypt && errors.Is(err, migrate.ErrUnfinished):
			return // the writers go on to seal with the old DEK
		case err != nil:
			t.Errorf("%s: %v", job.Kind, err)
			return
		default:
			for _, p := range result.Problems {
				t.Errorf("%s: %s: %v", job.Kind, p.Key, p.Err)
			}
			return
		}
	}
}
