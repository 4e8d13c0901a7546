package proxy

import (
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// guard refuses what clients may not do: write under the reserved prefix, and
// ask for what etcd would answer from envelopes. It also reports whether the
// answer can hold values under a rule.
func (c *call) guard(ops []wire.Op) (shows bool, _ *relay.Status) {
	reserved := c.session.server.reserved
	for i := range ops {
		op := &ops[i]
		writes := op.Kind == wire.OpPut || op.Kind == wire.OpDelete
		c.writes = c.writes || writes
		if writes && reserved != nil && wire.Overlaps(op.Key, op.End, reserved) {
			return false, refusal(codes.PermissionDenied, "writing %s: keys under %q hold etcdseal's keyring and are for etcdseal alone to write", keyRange(op), reserved)
		}
		if !c.rules.touches(op.Key, op.End) {
			continue
		}
		if why := c.unanswerable(op); why != "" {
			return false, refusal(codes.Unimplemented, "%s over %s, whose values are sealed, is not supported", why, keyRange(op))
		}
		switch op.Kind {
		case wire.OpPut, wire.OpDelete:
			shows = shows || op.PrevKV
		case wire.OpRange:
			shows = shows || !op.KeysOnly && !op.CountOnly
		}
	}
	return shows, nil
}

// unanswerable says why etcd cannot answer an operation from sealed values;
// empty if it can.
func (c *call) unanswerable(op *wire.Op) string {
	switch {
	case op.Kind == wire.OpCompare && op.Target == wire.CompareValue:
		return "a comparison of values"
	case op.Kind == wire.OpRange && op.SortTarget == wire.SortByValue && len(op.End) > 0:
		return "sorting by value"
	}
	switch c.method.Request {
	case wire.CampaignRequest, wire.ProclaimRequest, wire.LeaderRequest, wire.ResignRequest:
		return "an election"
	case wire.LockRequest, wire.UnlockRequest:
		return "a lock"
	}
	return ""
}

// keyRange names the keys of an operation in a message.
func keyRange(op *wire.Op) string {
	switch {
	case len(op.End) == 0:
		return quote(op.Key)
	case len(op.End) == 1 && op.End[0] == 0:
		return "the keys from " + quote(op.Key)
	}
	return "the keys from " + quote(op.Key) + " to " + quote(op.End)
}
