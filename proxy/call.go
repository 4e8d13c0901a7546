package proxy

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// atOnce is the context of who does not wait: errWait says then that a key is not at
// hand, or that a call takes others.
var atOnce context.Context = notWaiting{context.Background()}

var errWait = errors.New("waiting for a key")

// notWaiting tells atOnce from other contexts.
type notWaiting struct{ context.Context }

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
	helped  bool // it takes other calls
	caller  caller
}

// progress is how far a response has been opened while it comes in.
type progress struct {
	done   int           // up to here it is as it will be sent
	room   bool          // before it, for a RangeStreamResponse's header
	header wire.Header   // as far as it was seen
	failed *relay.Status // why it cannot be opened
}

// scratch is the memory for one message, and what seals and opens its values.
type scratch struct {
	scan  wire.Scan
	keys  []*envelope.Key // by the scan's values; nil: the value stays as it is
	bytes int             // of plaintext that were sealed or opened
	bad   []byte          // the key of the first that could not be opened
	err   error           // and why; nil if all could

	// The methods of these names, bound once.
	sealValue, openValue func(dst []byte, i int) []byte
	openInPlace          func(i int) []byte
}

var scratches = sync.Pool{New: func() any {
	w := new(scratch)
	w.sealValue, w.openValue, w.openInPlace = w.sealTo, w.openTo, w.open
	return w
}}

func (w *scratch) release() {
	w.scan.Clear()
	clear(w.keys)
	w.keys, w.bytes, w.bad, w.err = w.keys[:0], 0, nil, nil
	scratches.Put(w)
}

// sealTo appends the envelope of the i-th value.
func (w *scratch) sealTo(dst []byte, i int) []byte {
	v := &w.scan.Values[i]
	w.bytes += len(v.Old)
	return w.keys[i].Seal(dst, v.Key, v.Old)
}

// openTo appends the plaintext of the i-th value.
func (w *scratch) openTo(dst []byte, i int) []byte {
	v := &w.scan.Values[i]
	opened, err := w.keys[i].OpenTo(dst, v.Old, v.Key)
	if err != nil {
		w.failed(v.Key, err)
		return append(dst, v.Old[:v.NewLen]...) // of no use, but of the right length
	}
	w.bytes += v.NewLen
	return opened
}

// open returns the plaintext of the i-th value, where its envelope was.
func (w *scratch) open(i int) []byte {
	v := &w.scan.Values[i]
	if v.New != nil {
		return v.New
	}
	plain, err := w.keys[i].Open(v.Old, v.Key)
	if err != nil {
		w.failed(v.Key, err)
		return v.Old[:v.NewLen] // as above
	}
	w.bytes += len(plain)
	return plain
}

// failed notes the first failure. The key's memory may be written over later.
func (w *scratch) failed(key []byte, err error) {
	if w.err == nil {
		w.bad, w.err = bytes.Clone(key), err
	}
}

// Rewrite implements relay.Codec.
func (c *call) Rewrite(d relay.Direction, msg, lent []byte) relay.Verdict {
	return c.rewrite(atOnce, d, msg, lent)
}

// Wait implements relay.Codec.
func (c *call) Wait(ctx context.Context, d relay.Direction, msg []byte) relay.Verdict {
	began := time.Now()
	v := c.rewrite(ctx, d, msg, nil)
	if d == relay.Response || !c.helped {
		c.session.metrics.parked(began)
	}
	return v
}

// Lane implements relay.Codec: a call's messages stay in order.
func (c *call) Lane(relay.Direction, []byte) (int64, bool) { return 0, true }

// rewrite does both directions. With atOnce it parks what has to wait.
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
	asks, st := c.guard(scan.Ops)
	if st != nil {
		return refuse(st), nil
	}
	if c.helped = asks.help; asks.help {
		return c.help(ctx, w, asks.whole)
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
		out = scan.AppendFunc(lent[:0], w.sealValue)
		c.session.metrics.sealed(w.bytes)
	}
	c.asked = true
	return relay.Verdict{Msg: out, Untouched: c.method.Response == wire.NoMessage || !asks.shows && !found}, nil
}

// help sees to a request that takes other calls. The error is errWait or nil.
func (c *call) help(ctx context.Context, w *scratch, whole bool) (relay.Verdict, error) {
	switch {
	case ctx == atOnce:
		return relay.Verdict{}, errWait
	case c.method.Request == wire.CampaignRequest:
		return c.campaign(ctx, w, w.scan.Msg), nil
	}
	return c.assist(ctx, w.scan.Msg, whole), nil
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
