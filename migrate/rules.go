package migrate

import (
	"bytes"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ruleSet finds the rule of a key.
type ruleSet struct {
	rules    []Rule // longest prefix first
	reserved string
}

func newRuleSet(rules []Rule, reserved string) ruleSet {
	sorted := slices.Clone(rules)
	slices.SortStableFunc(sorted, func(a, b Rule) int { return len(b.Prefix) - len(a.Prefix) })
	return ruleSet{rules: sorted, reserved: reserved}
}

// find returns the rule of a key, nil if there is none.
func (s ruleSet) find(key []byte) *Rule {
	if s.isReserved(key) {
		return nil
	}
	for i := range s.rules {
		if bytes.HasPrefix(key, []byte(s.rules[i].Prefix)) {
			return &s.rules[i]
		}
	}
	return nil
}

// sealed reports whether the rule of a key seals.
func (s ruleSet) sealed(key []byte) bool {
	rule := s.find(key)
	return rule != nil && rule.Sealer != nil
}

// span is a range of keys as etcd has it.
type span struct{ key, end string }

// spans returns the ranges, apart from each other, in which keys under a rule can begin
// with a prefix.
func (s ruleSet) spans(prefix string) []span {
	var prefixes []string
	for _, rule := range s.rules {
		switch {
		case strings.HasPrefix(rule.Prefix, prefix):
			prefixes = append(prefixes, rule.Prefix)
		case strings.HasPrefix(prefix, rule.Prefix):
			prefixes = append(prefixes, prefix)
		}
	}
	slices.Sort(prefixes)
	var spans []span
	last := ""
	for i, p := range prefixes {
		if i > 0 && strings.HasPrefix(p, last) {
			continue
		}
		last = p
		spans = append(spans, spanOf(p))
	}
	return spans
}

// spanOf returns the range of the keys that begin with a prefix.
func spanOf(prefix string) span {
	if prefix == "" {
		return span{"\x00", "\x00"}
	}
	return span{prefix, clientv3.GetPrefixRangeEnd(prefix)}
}

// reach returns the prefixes of the rules that keys with a prefix can be under, those of
// rules that seal and of the others.
func (s ruleSet) reach(prefix string) (sealing, plain []string) {
	shadowed := false // by a rule that all keys with the prefix are under
	for _, rule := range s.rules {
		covers := strings.HasPrefix(prefix, rule.Prefix)
		if !covers && !strings.HasPrefix(rule.Prefix, prefix) || covers && shadowed {
			continue
		}
		shadowed = shadowed || covers
		if rule.Sealer != nil {
			sealing = append(sealing, rule.Prefix)
		} else {
			plain = append(plain, rule.Prefix)
		}
	}
	return sealing, plain
}
