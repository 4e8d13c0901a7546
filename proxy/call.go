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
	ahead   progress
	asked   bool // the request was passed on
	writes  bool // and may have changed something
}

// progress is how far a response has been opened while it comes in.
type progress struct {
	read    int           // up to here it was looked at
	written int           // and up to here stands what came of it
	header  wire.Header   // as far as it was seen
	stopped bool          // the rest is done when all of it is there
	failed  *relay.Status // why it cannot be opened
}

// scratch is the memory for one message.
type scratch struct {
	scan wire.Scan
	keys []*envelope.Key // by the scan's values; nil: the value stays as it is
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (w *scratch) release() {
	w.scan.Clear()
	clear(w.keys)
	w.keys = w.keys[:0]
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
		return relay.Verdict{Msg: unreadable()}, nil
	case c.asked && !c.method.ClientStreams:
		return relay.Verdict{}, nil // an empty one: etcd says, or does not, that it is one too many
	}
	shows, st := c.guard(scan.Ops)
	if st != nil {
		return refuse(st), nil
	}
	found, st, err := c.choose(ctx, w)
	if err != nil {
		return relay.Verdict{}, err
	}
	if st != nil {
		return refuse(st), nil
	}
	c.floor = c.session.revision.Load()
	out := scan.Msg
	if found {
		out = w.seal(lent[:0], c.session.metrics)
	}
	c.asked = true
	return relay.Verdict{Msg: out, Untouched: !shows && !found}, nil
}

// unreadable is a message that nobody can read: half a field's tag. It goes to etcd in
// place of one that cannot be read, so that etcd answers as its version does, and never
// gets what was not looked at.
func unreadable() []byte { return []byte{0xff} }

// choose finds the key of every value that is to be sealed. The error is errWait
// or nil.
func (c *call) choose(ctx context.Context, w *scratch) (found bool, _ *relay.Status, _ error) {
	scan := &w.scan
	w.keys = append(w.keys, make([]*envelope.Key, len(scan.Values))...)
	for i := range scan.Ops {
		op := &scan.Ops[i]
		if op.Kind != wire.OpPut || op.Value < 0 || op.IgnoreValue {
			continue
		}
		v := &scan.Values[op.Value]
		r := c.rules.find(v.Key)
		if r == nil {
			continue
		}
		if r.Sealer == nil {
			if envelope.Is(v.Old) {
				return false, refusal(codes.InvalidArgument, "writing the value of %s: it begins as an envelope does, and could not be read again while its rule says `seal: false`", quote(v.Key)), nil
			}
			continue
		}
		key, err := c.session.sealingKey(ctx, r.Sealer)
		if err == errWait {
			return false, nil, err
		}
		if err != nil {
			return false, keyRefusal(v.Key, "sealing", err), nil
		}
		w.keys[op.Value] = key
		v.Replace, v.NewLen = true, len(v.Old)+envelope.Overhead
		found = true
	}
	return found, nil, nil
}

// seal appends the message with its values sealed to dst.
func (w *scratch) seal(dst []byte, m *metrics) []byte {
	total := 0
	out := w.scan.AppendFunc(dst, func(dst []byte, i int) []byte {
		v := &w.scan.Values[i]
		total += len(v.Old)
		return w.keys[i].Seal(dst, v.Key, v.Old)
	})
	m.sealed(total)
	return out
}

// Ahead implements relay.Eager: a large list is opened as it comes in, while its
// bytes are in the processor's cache.
func (c *call) Ahead(d relay.Direction, msg []byte) {
	if d != relay.Response || c.method.Response != wire.RangeResponse || c.ahead.stopped {
		return
	}
	whole := wire.Complete(msg[c.ahead.read:])
	if whole == 0 {
		return
	}
	w := scratches.Get().(*scratch)
	defer w.release()
	_, st, err := c.open(nil, w, msg[:c.ahead.read+whole], true)
	c.ahead.failed = st
	c.ahead.stopped = st != nil || err != nil
}

// response opens one response, or what Ahead has left of it. The error is errWait
// or nil.
func (c *call) response(ctx context.Context, w *scratch, msg []byte) (relay.Verdict, error) {
	out, st, err := msg[:c.ahead.written], c.ahead.failed, error(nil)
	if st == nil {
		out, st, err = c.open(ctx, w, msg, false)
	}
	if err != nil {
		return relay.Verdict{}, err
	}
	header := c.ahead.header
	c.ahead = progress{}
	if st != nil {
		if c.writes && header.Revision > 0 {
			st = appliedRefusal(st, header.Revision)
		}
		return refuse(st), nil
	}
	return relay.Verdict{Msg: out}, nil
}

// open opens the part of a response that was not opened yet and returns all that
// is. The error is errWait or nil; it is errWait, too, if more is to come and the
// part is not in the plain form, which cannot be opened where it stands.
func (c *call) open(ctx context.Context, w *scratch, msg []byte, more bool) ([]byte, *relay.Status, error) {
	scan, a := &w.scan, &c.ahead
	if err := scan.Parse(c.method.Response, msg[a.read:]); err != nil {
		return nil, refusal(codes.DataLoss, "etcd's answer cannot be read: %v", err), nil
	}
	if more && scan.Normalised {
		return nil, nil, errWait
	}
	if scan.HasHeader {
		a.header = scan.Header
		c.session.heard(scan.Header, c.floor)
	}
	before := msg[:a.written]
	if scan.Normalised { // its memory is another
		before = nil
	}
	out, st, err := c.session.open(ctx, c.rules, w, before)
	if st != nil || err != nil {
		return nil, st, err
	}
	if scan.Normalised {
		out = append(msg[:a.written:a.written], out...)
	}
	a.read, a.written = len(msg), len(out)
	return out, nil, nil
}
