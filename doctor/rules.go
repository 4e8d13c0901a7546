package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/config"
)

// words looks at what a rule says.
func (d *doctor) words(n *notes, r *config.Rule) {
	if inner := d.inside(r.Prefix); len(inner) > 0 {
		n.add(Rules, OK, r.Prefix, "see that this is meant", "overlaps %s, of which the longer prefix wins for its keys", strings.Join(inner, ", "))
	}
	if len(r.RecoveryKEKs) == 0 {
		n.add(Rules, OK, r.Prefix, "name a second one, in another vault or region, in recoveryKEKs, so that the loss of the first loses nothing", "%s alone opens what is sealed", r.KEK)
	}
}

// inside returns the prefixes of the other rules that begin with a prefix.
func (d *doctor) inside(prefix string) []string {
	var inner []string
	for _, r := range d.Config.Config.Rules {
		if r.Prefix != prefix && strings.HasPrefix(r.Prefix, prefix) {
			inner = append(inner, r.Prefix)
		}
	}
	slices.Sort(inner)
	return inner
}

// reach looks at whether a rule catches more keys than its prefix suggests.
func (d *doctor) reach(ctx context.Context, n *notes, r *config.Rule) {
	if strings.HasSuffix(r.Prefix, "/") {
		return
	}
	const do = "end the prefix with a slash, if only what is below it is meant"
	var beside int64
	err := errNotAsked
	if len(d.usable) > 0 {
		beside, err = d.beside(ctx, r.Prefix)
	}
	if err != nil {
		n.add(Rules, Warning, r.Prefix, do, "does not end with a slash, so that other keys which begin so are under the rule, too")
		return
	}
	n.add(Rules, Warning, r.Prefix, do, "does not end with a slash: %s of those under the rule not below %s/", isAre(beside), r.Prefix)
}

var errNotAsked = errors.New("no endpoint can be asked")

func isAre(count int64) string {
	if count == 1 {
		return "1 key is"
	}
	return plural(count, "key") + " are"
}

// beside counts the keys that begin with a prefix and are not below it.
func (d *doctor) beside(ctx context.Context, prefix string) (int64, error) {
	all, err := d.count(ctx, span{prefix, clientv3.GetPrefixRangeEnd(prefix)})
	if err != nil {
		return 0, err
	}
	below, err := d.count(ctx, span{prefix + "/", clientv3.GetPrefixRangeEnd(prefix + "/")})
	return all - below, err
}

// count counts the keys of a range.
func (d *doctor) count(ctx context.Context, s span) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	answer, err := d.Client.Get(ctx, s.key, clientv3.WithRange(s.end), clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return answer.Count, nil
}
