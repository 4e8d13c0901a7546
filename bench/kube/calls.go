package kube

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
)

const (
	// callSecrets is the number of secrets that gets, updates and lists are about.
	callSecrets = 4 * perNamespace
	// warmUp is how long a side that was frozen gets before it counts.
	warmUp = 100 * time.Millisecond
	// sliceTime is how long one side is on turn before the next one is.
	sliceTime = 100 * time.Millisecond
	// halfLoad is the share of the slowest side's throughput at which latencies are measured.
	halfLoad = 0.5
)

// workload is one kind of call.
type workload struct {
	name     string
	inFlight int  // when as many calls are made as possible
	paced    bool // whether its latency is measured at a fixed rate, too
	figure   bool // whether etcdseal must be no slower than KMS v2
	fromEtcd bool // whether each call must be answered from etcd
}

var (
	get      = workload{name: "get", inFlight: 16, paced: true, figure: true, fromEtcd: true}
	listPage = workload{name: "list", inFlight: 4, paced: true, figure: true, fromEtcd: true}
	update   = workload{name: "update", inFlight: 16}
	create   = workload{name: "create", inFlight: 16, paced: true, figure: true}
	remove   = workload{name: "delete", inFlight: 16}

	// workloads are in the order of a turn: what was created is deleted at its end.
	workloads = []workload{get, listPage, update, create, remove}
)

// samples are one side's measurements of one workload; the i-th element is of the i-th round.
type samples struct {
	perSecond                  []float64
	server, between, etcd, all []float64 // microseconds of processor time for each call
	latencies                  *load.Histogram
}

// tally is what one side did in one round of a workload, over all its slices.
type tally struct {
	calls   int
	elapsed time.Duration
	used    usage
	reads   float64 // of etcd, before the first slice
}

// caller makes one side's calls.
type caller struct {
	*side
	tally   tally
	version string // the resource version at which lists are read
	updates atomic.Int64
	named   int // how many names were given to secrets that come and go
	samples map[string]*samples

	mu   sync.Mutex // guards those below
	made []secret   // to be deleted
}

// measureCalls takes the rounds: in each one kind of call after the other. In the first round, which does not count, it finds the rates at which latencies
// are measured.
func measureCalls(ctx context.Context, st *stage, rep *report.Report) error {
	callers := make(map[*side]*caller)
	for _, s := range st.sides {
		callers[s] = &caller{side: s, samples: make(map[string]*samples)}
		if err := st.onTurn(ctx, s, func(ctx context.Context, s *side) error { return s.fill(ctx, callSecrets) }); err != nil {
			return err
		}
	}
	rates := make(map[string]float64)
	for round := range st.cfg.Rounds + 1 {
		fmt.Fprintf(st.cfg.Progress, "calls, round %d of %d\n", round, st.cfg.Rounds)
		for _, w := range workloads {
			if err := st.measure(ctx, callers, w, round, rates[w.name]); err != nil {
				return fmt.Errorf("measuring %s: %w", w.name, err)
			}
			if round > 0 {
				continue
			}
			rates[w.name] = math.Inf(1)
			for _, c := range callers {
				rates[w.name] = min(rates[w.name], halfLoad*c.of(w).perSecond[0])
				delete(c.samples, w.name)
			}
		}
	}
	rep.Set("kube: rounds", strconv.Itoa(st.cfg.Rounds))
	rep.Set("kube: one side's turn for each kind of call", fmt.Sprintf("%s, in slices of %s", st.cfg.Turn, sliceTime))
	rep.Set("kube: secrets", fmt.Sprintf("%d of %d bytes, pages of %d", callSecrets, valueSize, perNamespace))
	for _, w := range workloads {
		addCalls(rep, w, rates[w.name], func(name string) *samples { return callers[st.side(name)].samples[w.name] })
	}
	return nil
}

// measure is one round of a workload. The sides are on turn for a slice, one right after the other and again, since the speed of a machine that is shared may
// change within a second; what is compared is the sum of a side's slices. Without a rate there are no latencies.
func (st *stage) measure(ctx context.Context, callers map[*side]*caller, w workload, round int, rate float64) error {
	err := st.inTurn(ctx, round, func(ctx context.Context, s *side) error { return callers[s].warm(ctx) })
	if err != nil {
		return err
	}
	for left := max(1, int(st.cfg.Turn/sliceTime)); left > 0; left-- {
		for i := range st.sides {
			c := callers[st.sides[(i+round)%len(st.sides)]]
			if err := errors.Join(c.resume(), c.slice(ctx, w, left), c.freeze()); err != nil {
				return fmt.Errorf("%s: %w", c.side.name, err)
			}
		}
	}
	return st.inTurn(ctx, round, func(ctx context.Context, s *side) error { return callers[s].finish(ctx, w, st.cfg.Turn, rate) })
}

// warm makes ready for a round.
func (c *caller) warm(ctx context.Context) error {
	page, err := c.client.read(ctx, call{method: http.MethodGet, path: secretsPath(numbered(0).namespace), query: "limit=1"})
	if err != nil {
		return err
	}
	l, err := decodeList(page)
	if err != nil {
		return err
	}
	c.version = l.version
	if _, err := saturate(ctx, c.work(get, 0), get.inFlight, warmUp, 0); err != nil {
		return err
	}
	c.tally = tally{}
	c.tally.reads, err = c.etcdReads(ctx)
	return err
}

// slice makes as many calls as possible for a moment, or its share of the deletions, and takes the processor time that each part of the side used. left is
// the number of slices of the round that are left with this one.
func (c *caller) slice(ctx context.Context, w workload, left int) error {
	limit := 0
	if w.name == remove.name {
		if limit = (len(c.made) + left - 1) / left; limit == 0 {
			return nil
		}
	}
	before, err := c.usage()
	if err != nil {
		return err
	}
	done, err := saturate(ctx, c.work(w, limit), w.inFlight, sliceTime, limit)
	if err != nil {
		return err
	}
	after, err := c.usage()
	if err != nil {
		return err
	}
	c.tally.calls, c.tally.elapsed, c.tally.used = c.tally.calls+done.calls, c.tally.elapsed+done.elapsed, c.tally.used.plus(after.since(before))
	return nil
}

// finish makes a sample of the round's slices, after a look whether etcd was asked for all of it, and measures latencies.
func (c *caller) finish(ctx context.Context, w workload, d time.Duration, rate float64) error {
	now, err := c.etcdReads(ctx)
	if err != nil {
		return err
	}
	t := c.tally
	if t.calls == 0 {
		return errors.New("no call was made")
	}
	if asked := now - t.reads; w.fromEtcd && asked < float64(t.calls) {
		return fmt.Errorf("etcd was asked %.0f times for %d calls: kube-apiserver answered from its cache", asked, t.calls)
	}
	c.of(w).add(t)
	if rate > 0 && w.paced {
		done, err := load.At(ctx, load.Pace{PerSecond: rate, Duration: d}, c.work(w, 0))
		if err != nil {
			return fmt.Errorf("at a fixed rate: %w", err)
		}
		c.of(w).latencies.Add(done.Latency)
	}
	if w.name == remove.name {
		return c.compact(ctx)
	}
	return nil
}

// add takes the sums of one round.
func (s *samples) add(t tally) {
	s.perSecond = append(s.perSecond, float64(t.calls)/t.elapsed.Seconds())
	for _, of := range []struct {
		into *[]float64
		time time.Duration
	}{{&s.server, t.used.server}, {&s.between, t.used.between}, {&s.etcd, t.used.etcd}, {&s.all, t.used.sum()}} {
		*of.into = append(*of.into, float64(of.time.Nanoseconds())/1000/float64(t.calls))
	}
}

func (c *caller) of(w workload) *samples {
	if c.samples[w.name] == nil {
		c.samples[w.name] = &samples{latencies: load.NewHistogram()}
	}
	return c.samples[w.name]
}

// work prepares calls of a workload, of which there will be no more than the limit if it is a deletion.
func (c *caller) work(w workload, limit int) work {
	switch w.name {
	case get.name:
		return func(ctx context.Context, n int) error { return c.client.do(ctx, getOf(numbered(n*7919%callSecrets))) }
	case listPage.name:
		return func(ctx context.Context, n int) error {
			namespace := numbered(n % (callSecrets / perNamespace) * perNamespace).namespace
			return c.client.do(ctx, listAt(secretsPath(namespace), c.version, perNamespace, perNamespace*valueSize))
		}
	case update.name:
		// In order, so that no two calls are about the same secret at once, and each with another value: kube-apiserver does not write what is there.
		return func(ctx context.Context, _ int) error {
			n := int(c.updates.Add(1))
			return c.client.do(ctx, updateOf(numbered(n%callSecrets), callSecrets+n))
		}
	case create.name:
		from := c.named
		return func(ctx context.Context, n int) error {
			s := created(from + n)
			if err := c.client.do(ctx, createOf(s, n)); err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.made, c.named = append(c.made, s), max(c.named, from+n+1)
			return nil
		}
	case remove.name:
		made := c.made[:limit]
		c.made = c.made[limit:]
		return func(ctx context.Context, n int) error { return c.client.do(ctx, deleteOf(made[n])) }
	}
	panic("kube: there is no workload " + w.name)
}
