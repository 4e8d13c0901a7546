package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// errWait says, without a context, that a key is not at hand.
var errWait = errors.New("waiting for a key")

// call is the codec of one call that is not a watch: requests are guarded and
// sealed, responses opened. It keeps the rules it began with.
type call struct {
	session *session
	rules   *Rules
	method  wire.Method
	floor   int64 // the revision that the answer cannot be below
}

// scratch is the memory for one message.
type scratch struct {
	scan   wire.Scan
	keys   []*envelope.Key // by the scan's values; nil: not to be opened
	sealed []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (w *scratch) release() {
	w.scan.Clear()
	clear(w.keys)
	w.keys = w.keys[:0]
	if cap(w.sealed) > 64<<10 {
		w.sealed = nil
	}
	scratches.Put(w)
}

// Rewrite implements relay.Codec.
func (c *call) Rewrite(d relay.Direction, msg, lent []byte) relay.Verdict {
	return c.rewrite(nil, d, msg, lent)
}

// Wait implements relay.Codec.
func (c *call) Wait(ctx context.Context, d relay.Direction, msg []byte) relay.Verdict {
	defer c.session.metrics.parked(time.Now())
	return c.rewrite(ctx, d, msg, nil)
}

// Lane implements relay.Codec: a call's messages stay in order.
func (c *call) Lane(relay.Direction, []byte) (int64, bool) { return 0, true }

// rewrite does both directions. Without a context it parks what has to wait.
func (c *call) rewrite(ctx context.Context, d relay.Direction, msg, lent []byte) relay.Verdict {
	w := scratches.Get().(*scratch)
	defer w.release()
	var v relay.Verdict
	var err error
	if d == relay.Request {
		v, err = c.request(ctx, w, msg, lent)
	} else {
		v, err = c.response(ctx, w, msg)
	}
	if err == errWait {
		return relay.Verdict{Action: relay.Park}
	}
	return v
}

func refuse(st *relay.Status) relay.Verdict { return relay.Verdict{Action: relay.Refuse, Status: st} }

// request guards and seals one request. The error is errWait or nil.
func (c *call) request(ctx context.Context, w *scratch, msg, lent []byte) (relay.Verdict, error) {
	scan := &w.scan
	switch err := scan.Parse(c.method.Request, msg); {
	case errors.Is(err, wire.ErrTooManyOps):
		return refuse(&relay.Status{Code: codes.InvalidArgument, Message: "etcdserver: too many operations in txn request"}), nil
	case err != nil:
		return refuse(&relay.Status{Code: codes.Internal, Message: c.method.MalformedText()}), nil
	}
	shows, st := c.guard(scan.Ops)
	if st != nil {
		return refuse(st), nil
	}
	replaced, st, err := c.seal(ctx, w)
	if err != nil {
		return relay.Verdict{}, err
	}
	if st != nil {
		return refuse(st), nil
	}
	c.floor = c.session.revision.Load()
	out := scan.Msg
	if replaced {
		out = scan.Append(lent[:0])
	}
	return relay.Verdict{Msg: out, Untouched: !shows}, nil
}

// seal replaces the values that are to be sealed. The error is errWait or nil.
func (c *call) seal(ctx context.Context, w *scratch) (replaced bool, _ *relay.Status, _ error) {
	scan := &w.scan
	size := 0
	for i := range scan.Values {
		size += len(scan.Values[i].Old) + envelope.Overhead
	}
	for i := range scan.Ops {
		op := &scan.Ops[i]
		if op.Kind != wire.OpPut || op.Value < 0 || op.IgnoreValue {
			continue
		}
		v := &scan.Values[op.Value]
		r := c.rules.find(v.Key)
		if r == nil || r.Sealer == nil {
			continue
		}
		key, err := c.session.sealingKey(ctx, r.Sealer)
		if err == errWait {
			return false, nil, err
		}
		if err != nil {
			return false, keyRefusal(v.Key, "sealing", err), nil
		}
		if cap(w.sealed) < size {
			w.sealed = make([]byte, 0, size)
		}
		from := len(w.sealed)
		w.sealed = key.Seal(w.sealed, v.Key, v.Old)
		v.New, v.Replace = w.sealed[from:], true
		replaced = true
		c.session.metrics.sealed(len(v.Old))
	}
	w.sealed = w.sealed[:0]
	return replaced, nil, nil
}

// response opens one response. The error is errWait or nil.
func (c *call) response(ctx context.Context, w *scratch, msg []byte) (relay.Verdict, error) {
	scan := &w.scan
	if err := scan.Parse(c.method.Response, msg); err != nil {
		return refuse(refusal(codes.DataLoss, "etcd's answer cannot be read: %v", err)), nil
	}
	if scan.HasHeader {
		c.session.heard(scan.Header, c.floor)
	}
	st, err := c.session.open(ctx, c.rules, w)
	if err != nil {
		return relay.Verdict{}, err
	}
	if st != nil {
		if c.method.Request != wire.RangeRequest && scan.HasHeader {
			st = appliedRefusal(st, scan.Header.Revision)
		}
		return refuse(st), nil
	}
	return relay.Verdict{Msg: scan.InPlace()}, nil
}
