package proxy

import (
	"bytes"
	"slices"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// Rule says what becomes of the values of the keys that begin with a prefix.
type Rule struct {
	// Prefix is what the etcd keys begin with; the longest prefix wins.
	Prefix string
	// Sealer seals what clients write. Nil: it is written as it is.
	Sealer *dek.Sealer
	// DenyPlaintext fails calls that read a value which is not sealed, with
	// FailedPrecondition.
	DenyPlaintext bool
	// Passthrough hands out an envelope that can't be opened as it is stored,
	// instead of failing the call.
	Passthrough bool
}

// Rules are all rules of a proxy. They are not changed after NewRules; nil is
// no rules.
type Rules struct {
	rules []rule // longest prefix first
}

type rule struct {
	Rule
	prefix []byte
}

// NewRules returns rules in which the longest matching prefix wins.
func NewRules(rules []Rule) *Rules {
	r := &Rules{}
	for _, one := range rules {
		r.rules = append(r.rules, rule{Rule: one, prefix: []byte(one.Prefix)})
	}
	slices.SortStableFunc(r.rules, func(a, b rule) int { return len(b.prefix) - len(a.prefix) })
	return r
}

// find returns the rule of a key, nil if there is none.
func (r *Rules) find(key []byte) *rule {
	if r == nil {
		return nil
	}
	for i := range r.rules {
		if bytes.HasPrefix(key, r.rules[i].prefix) {
			return &r.rules[i]
		}
	}
	return nil
}

// touches reports whether a key under a rule can be in etcd's key range.
func (r *Rules) touches(key, end []byte) bool {
	if r == nil {
		return false
	}
	for i := range r.rules {
		if wire.Overlaps(key, end, r.rules[i].prefix) {
			return true
		}
	}
	return false
}
