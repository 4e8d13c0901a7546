package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Pages of values: from how many keys to how many, and how large they should be, so that
// values of the largest kind do not make one of hundreds of megabytes.
const (
	pageMin   = 4
	pageMax   = 256
	pageBytes = 1 << 20
	// sampleBytes is how much of a rule is read at most.
	sampleBytes = 32 << 20
)

// sample is what the first values under a rule are.
type sample struct {
	keys   int64 // there are
	looked int64 // of them, that were looked at
	bytes  int64 // in those

	empty, sealed, plain, kubernetes, broken int64

	providers map[string]int64 // of kube-apiserver's own encryption
	deks      map[envelope.ID]string
	wrong     string // the first key with a broken envelope

	need    int64 // the largest request that it takes to write one of them, sealed
	needKey string
}

// span is a range of keys as etcd has it.
type span struct{ key, end string }

// spans returns the ranges of the keys that a rule is the rule of: those that begin with
// its prefix, without those that begin with a longer one.
func (d *doctor) spans(prefix string) []span {
	var spans []span
	from, until := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for _, inner := range d.inside(prefix) {
		if inner < from {
			continue // within one that was left out
		}
		if from < inner {
			spans = append(spans, span{from, inner})
		}
		from = clientv3.GetPrefixRangeEnd(inner)
	}
	if from != "\x00" && (from < until || until == "\x00") { // which is the end of all keys
		spans = append(spans, span{from, until})
	}
	return spans
}

// under looks at what is there under a rule.
func (d *doctor) under(ctx context.Context, n *notes, r *config.Rule) *sample {
	s := &sample{providers: map[string]int64{}, deks: map[envelope.ID]string{}}
	for _, span := range d.spans(r.Prefix) {
		count, err := d.count(ctx, span)
		if err == nil {
			s.keys += count
			err = d.read(ctx, s, span)
		}
		if err != nil {
			n.add(Rules, Unknown, r.Prefix, "see what etcd says, and run this again", "what is there cannot be read: %v", err)
			return s
		}
	}
	s.judge(n, r)
	return s
}

// read looks at the values of a range until enough was seen.
func (d *doctor) read(ctx context.Context, s *sample, in span) error {
	limit := pageMin
	for s.looked < int64(d.MaxSampled) && s.bytes < sampleBytes {
		limit = min(limit, d.MaxSampled-int(s.looked))
		bounded, cancel := context.WithTimeout(ctx, d.Timeout)
		answer, err := d.Client.Get(bounded, in.key, clientv3.WithRange(in.end), clientv3.WithLimit(int64(limit)))
		cancel()
		if err != nil {
			return err
		}
		var read int64
		for _, kv := range answer.Kvs {
			s.take(string(kv.Key), kv.Value)
			read += int64(len(kv.Key) + len(kv.Value))
		}
		s.bytes += read
		if !answer.More || len(answer.Kvs) == 0 {
			return nil
		}
		switch {
		case read < pageBytes/2:
			limit = min(2*limit, pageMax)
		case read > pageBytes:
			limit = max(limit/2, pageMin)
		}
		in.key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
	return nil
}

// kubernetes begins what kube-apiserver encrypts by itself.
const kubernetes = "k8s:enc:"

// take looks at one value.
func (s *sample) take(key string, value []byte) {
	s.looked++
	sealed := len(value)
	id, err := envelope.Parse(value)
	switch {
	case len(value) == 0:
		s.empty++
		return
	case err == nil:
		s.sealed++
		if _, ok := s.deks[id]; !ok {
			s.deks[id] = key
		}
	case !errors.Is(err, envelope.ErrNotEnvelope):
		if s.broken++; s.wrong == "" {
			s.wrong = key
		}
	default:
		sealed += envelope.Overhead
		if bytes.HasPrefix(value, []byte(kubernetes)) {
			s.kubernetes++
			s.providers[provider(value)]++
		} else {
			s.plain++
		}
	}
	// kube-apiserver's transaction compares the key, puts the value, and reads the key.
	if need := int64(sealed + 3*len(key) + requestFrame); need > s.need {
		s.need, s.needKey = need, key
	}
}

// requestFrame is somewhat more than what a request takes beside keys and values.
const requestFrame = 256

// provider names what encrypted a value: k8s:enc:aescbc:v1:KEY: or k8s:enc:kms:v2:NAME:,
// then the ciphertext.
func provider(value []byte) string {
	parts := strings.SplitN(string(value[len(kubernetes):min(len(value), 256)]), ":", 4)
	if len(parts) < 4 {
		return "an unknown provider"
	}
	kind, version, name := parts[0], parts[1], parts[2]
	if !word(kind) || !word(version) || !word(name) {
		return "an unknown provider"
	}
	if kind == "kms" {
		return fmt.Sprintf("kms %s, plugin %s", version, name)
	}
	return fmt.Sprintf("%s, key %s", kind, name)
}

// word says whether a text is a name that may be shown.
func word(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// judge says whether what is there fits the rule.
func (s *sample) judge(n *notes, r *config.Rule) {
	looked := plural(s.keys, "key")
	if s.looked < s.keys {
		looked += fmt.Sprintf(", of which the first %d were looked at", s.looked)
	}
	if s.broken > 0 {
		n.add(Rules, Problem, r.Prefix, "see `etcdseal inspect --key` of it, and put it back from a backup", "%d values begin as envelopes do and are none, %s the first", s.broken, s.wrong)
	}
	if s.kubernetes > 0 {
		s.judgeKubernetes(n, r)
	}
	level, do := OK, ""
	switch {
	case r.Plaintext == config.PlaintextDeny && s.plain > 0:
		level, do = Problem, "set plaintext: allow, run `etcdseal encrypt`, and set deny when `etcdseal verify` finds nothing"
	case r.Seal && s.plain > 0:
		level, do = Warning, "run `etcdseal encrypt --purge` when etcdseal serves, then `etcdseal verify`"
	case !r.Seal && s.sealed > 0:
		level, do = Warning, "as it should be while all proxies get `seal: false` first, or when you leave; else set seal: true. To leave, run `etcdseal decrypt`"
	case r.Seal && r.Plaintext == config.PlaintextAllow && s.sealed > 0 && s.kubernetes == 0 && s.looked == s.keys:
		do = "set plaintext: deny, so that nobody can plant plaintext, when `etcdseal verify` finds none"
	}
	text := fmt.Sprintf("%s: %d sealed, %d plaintext", looked, s.sealed, s.plain)
	if s.empty > 0 {
		text += fmt.Sprintf(", %d empty", s.empty)
	}
	switch {
	case level == Problem:
		text += "; plaintext: deny makes reading those fail"
	case r.Seal && s.plain > 0:
		text += ", though the rule seals"
	case !r.Seal:
		text += "; the rule writes plaintext (seal: false)"
	}
	n.add(Rules, level, r.Prefix, do, "%s", text)
}

// judgeKubernetes says what becomes of what kube-apiserver encrypted by itself.
func (s *sample) judgeKubernetes(n *notes, r *config.Rule) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.providers)) {
		names = append(names, fmt.Sprintf("%s (%d)", name, s.providers[name]))
	}
	level, found := Warning, "values encrypted by kube-apiserver itself (EncryptionConfiguration)"
	if r.Plaintext == config.PlaintextDeny {
		level, found = Problem, found+", which plaintext: deny takes for plaintext, so that reading them fails"
	}
	n.add(Rules, level, r.Prefix,
		"etcdseal seals them once more, which works and needs both keys: keep the provider's key. To be rid of it, put identity: {} first in EncryptionConfiguration, restart kube-apiserver, rewrite the secrets (kubectl get secrets -A -o json | kubectl replace -f -), take the provider out, and run `etcdseal encrypt`",
		"%s: %s", found, strings.Join(names, "; "))
}
