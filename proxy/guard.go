package proxy

import (
	"bytes"

	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// asks is what a request wants that concerns keys under a rule.
type asks struct {
	shows bool // the answer can hold their values
	help  bool // etcd alone cannot answer
	whole bool // and whole key ranges have to be read for it
}

// guard refuses what clients may not do: write under the reserved prefix.
func (c *call) guard(ops []wire.Op) (a asks, _ *relay.Status) {
	reserved := c.session.server.reserved
	for i := range ops {
		op := &ops[i]
		writes := op.Kind == wire.OpPut || op.Kind == wire.OpDelete
		c.writes = c.writes || writes
		if writes && reserved != nil && mayWrite(op, reserved) {
			return asks{}, refusal(codes.PermissionDenied, "writing %s: keys under %q hold etcdseal's keyring and are for etcdseal alone to write", keyRange(op), reserved)
		}
		if !c.rules.touches(op.Key, op.End) {
			continue
		}
		if st := c.sortsStream(op); st != nil {
			return asks{}, st
		}
		if c.needsHelp(op) {
			a.help, a.whole = true, a.whole || len(op.End) > 0
		}
		switch op.Kind {
		case wire.OpPut, wire.OpDelete:
			a.shows = a.shows || op.PrevKV
		case wire.OpRange:
			a.shows = a.shows || !op.KeysOnly && !op.CountOnly
		}
	}
	return a, nil
}

// mayWrite reports whether an operation can write or delete a key with a prefix. One
// for which etcd grants a lease first writes a key that ends with its number.
func mayWrite(op *wire.Op, prefix []byte) bool {
	if op.Kind != wire.OpPut || len(op.End) == 0 {
		return wire.Overlaps(op.Key, op.End, prefix)
	}
	rest, within := bytes.CutPrefix(prefix, op.Key)
	return bytes.HasPrefix(op.Key, prefix) || within && len(bytes.Trim(rest, "0123456789abcdef")) == 0
}

// sortsStream refuses a RangeStream that names VALUE and no order. etcd refuses
// those that name both; this one it sorts chunk by chunk and goes on after the key
// that happens to come last, so that keys are left out or come twice.
func (c *call) sortsStream(op *wire.Op) *relay.Status {
	if c.method.Response == wire.RangeStreamResponse && op.SortTarget == wire.SortByValue && op.SortOrder == 0 &&
		len(op.Key) > 0 && len(op.End) > 0 && !op.CountOnly && !op.Filters {
		return &relay.Status{Code: codes.Unimplemented, Message: "RangeStream does not support custom sort orders"}
	}
	return nil
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
