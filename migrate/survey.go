package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Bounds of a Survey, so that what somebody puts into etcd does not fill the memory here.
const (
	MaxNamed   = 100     // values that are named
	maxCounted = 1 << 16 // DEKs whose values are counted
)

// Survey is what is under the rules at one revision.
type Survey struct {
	Revision int64
	Scanned  bool // values were read; else nothing but keys was counted
	Rules    []RuleSurvey
	// Values counts the live values under each DEK, for the DEKs of which there is a
	// record and for others. Further DEKs than there is room for are in Others.
	Values map[envelope.ID]int64
	Others int64
	// Undecryptable are the first of the values that cannot be opened. How many there
	// are is in the rules.
	Undecryptable []Problem
}

// RuleSurvey is what is under one rule: the keys for which no rule has a longer prefix.
type RuleSurvey struct {
	Prefix string
	Seals  bool
	Keys   int64
	// What follows is 0 unless values were read. Together it is Keys.
	Sealed        int64 // and opened
	Plaintext     int64
	Empty         int64 // neither: an empty value stays one
	Undecryptable int64
}

// Failed is how many values cannot be opened.
func (s *Survey) Failed() (n int64) {
	for _, r := range s.Rules {
		n += r.Undecryptable
	}
	return n
}

// Count counts the keys under each rule. Etcd does that in its index: no value is read.
func (e *Engine) Count(ctx context.Context) (*Survey, error) {
	out := e.newSurvey()
	counted := map[string]int64{}
	prefixes := []string{}
	if e.Reserved != "" {
		prefixes = append(prefixes, e.Reserved)
	}
	for _, r := range e.Rules {
		prefixes = append(prefixes, r.Prefix)
	}
	for _, p := range prefixes {
		n, err := e.countAt(ctx, spanOf(p), &out.Revision)
		if err != nil {
			return nil, fmt.Errorf("counting the keys from %q: %w", p, err)
		}
		counted[p] = n
	}
	for i := range out.Rules {
		out.Rules[i].Keys = counted[out.Rules[i].Prefix]
		for _, p := range inside(out.Rules[i].Prefix, prefixes) {
			out.Rules[i].Keys -= counted[p]
		}
	}
	return out, nil
}

// inside returns those of prefixes that a prefix covers and none of the others that it
// covers does.
func inside(prefix string, prefixes []string) []string {
	covers := func(p, other string) bool { return p != other && strings.HasPrefix(other, p) }
	var out []string
	for _, p := range prefixes {
		direct := covers(prefix, p)
		for _, between := range prefixes {
			direct = direct && !(covers(prefix, between) && covers(between, p))
		}
		if direct {
			out = append(out, p)
		}
	}
	return out
}

// countAt counts a range at a revision. One that is 0 becomes the latest, and so does one
// that was compacted.
func (e *Engine) countAt(ctx context.Context, s span, revision *int64) (n int64, err error) {
	r := &run{engine: e}
	err = r.insist(ctx, func(ctx context.Context) error {
		count := func() (*clientv3.GetResponse, error) {
			return e.KV.Get(ctx, s.key, clientv3.WithRange(s.end), clientv3.WithCountOnly(), clientv3.WithRev(*revision))
		}
		answer, err := count()
		if errors.Is(err, rpctypes.ErrCompacted) {
			*revision = 0
			answer, err = count()
		}
		if err != nil {
			return err
		}
		n = answer.Count
		if *revision == 0 {
			*revision = answer.Header.Revision
		}
		return nil
	})
	return n, err
}

func (e *Engine) newSurvey() *Survey {
	s := &Survey{Values: map[envelope.ID]int64{}}
	for _, r := range e.Rules {
		s.Rules = append(s.Rules, RuleSurvey{Prefix: r.Prefix, Seals: r.Sealer != nil})
	}
	return s
}

// Survey reads every value under a rule, at one revision, and opens it. No plaintext is
// kept. The error says that not everything could be looked at: a KEK that does not answer
// makes no value undecryptable.
func (e *Engine) Survey(ctx context.Context) (*Survey, error) {
	s := &surveyor{engine: e, out: e.newSurvey(), rules: map[string]*RuleSurvey{}}
	s.out.Scanned = true
	for i := range s.out.Rules {
		s.rules[s.out.Rules[i].Prefix] = &s.out.Rules[i]
	}
	w := &walker{engine: e, look: s.look}
	for _, sp := range e.rules.spans("") {
		revision, err := w.live(ctx, sp, s.out.Revision)
		if err != nil {
			return nil, fmt.Errorf("surveying: %w", err)
		}
		s.out.Revision = revision
	}
	return s.out, nil
}

// surveyor is the work of Survey.
type surveyor struct {
	engine *Engine
	out    *Survey
	rules  map[string]*RuleSurvey // by prefix
}

// look counts one value.
func (s *surveyor) look(ctx context.Context, kv *mvccpb.KeyValue, _ Place) error {
	found := s.engine.rules.find(kv.Key)
	if found == nil {
		return nil
	}
	rule := s.rules[found.Prefix]
	rule.Keys++
	if len(kv.Value) == 0 {
		rule.Empty++
		return nil
	}
	if id, err := envelope.Parse(kv.Value); err == nil {
		s.count(id)
	}
	err := s.opens(ctx, kv)
	switch {
	case err == nil:
		rule.Sealed++
	case errors.Is(err, ErrPlaintext):
		rule.Plaintext++
	case ctx.Err() != nil:
		return ctx.Err()
	case saysNothing(err):
		return fmt.Errorf("opening %q: %w", kv.Key, err)
	default:
		rule.Undecryptable++
		if len(s.out.Undecryptable) < MaxNamed {
			s.out.Undecryptable = append(s.out.Undecryptable, Problem{Key: bytes.Clone(kv.Key), Err: err})
		}
	}
	return nil
}

// opens is Engine.opens, which is tried again for as long as a KEK does not answer and
// patience lasts.
func (s *surveyor) opens(ctx context.Context, kv *mvccpb.KeyValue) (err error) {
	if err = s.engine.opens(ctx, kv); err == nil || !passing(err) {
		return err
	}
	return (&run{engine: s.engine}).insist(ctx, func(ctx context.Context) error { return s.engine.opens(ctx, kv) })
}

func (s *surveyor) count(id envelope.ID) {
	if _, ok := s.out.Values[id]; !ok && len(s.out.Values) >= maxCounted {
		s.out.Others++
		return
	}
	s.out.Values[id]++
}
