package doctor

import (
	"context"
	"maps"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// contents looks at the rules, at what is there under each, and at the keyring, one after
// the other, since each needs what the one before found.
func (d *doctor) contents(ctx context.Context, n *notes) {
	var samples []*sample
	used := map[envelope.ID]string{}
	for i := range d.Config.Config.Rules {
		r := &d.Config.Config.Rules[i]
		d.words(n, r)
		d.reach(ctx, n, r)
		if !d.askable(n, Rules, r.Prefix) {
			continue
		}
		s := d.under(ctx, n, r)
		samples = append(samples, s)
		maps.Copy(used, s.deks)
	}
	if d.askable(n, Requests, "all") {
		d.requests(ctx, n, samples)
	}
	d.keyring(ctx, n, used)
}
