package proxy

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// Ahead implements relay.Eager: the values of a large list are opened on their way
// from where they came in to where they go out from.
func (c *call) Ahead(size int, dst, part []byte) (out []byte, used, need int) {
	a, skipped := &c.ahead, 0
	switch c.method.Response {
	case wire.RangeResponse:
	case wire.RangeStreamResponse:
		if a.room {
			break
		}
		if skipped = wire.StreamHeader(part, size); skipped == 0 {
			return dst, 0, 0
		}
		a.room = true
		dst = append(dst, make([]byte, wire.StreamRoom)...)
	default:
		return dst, 0, 0
	}
	whole, need := wire.Whole(part[skipped:])
	dst, ok := c.openAhead(dst, part[skipped:skipped+whole])
	if !ok {
		whole, need = 0, 0
	}
	a.done = len(dst)
	return dst, skipped + whole, need
}

// openAhead opens a part of a RangeResponse, and reports whether it could.
func (c *call) openAhead(dst, part []byte) ([]byte, bool) {
	w := scratches.Get().(*scratch)
	defer w.release()
	scan := &w.scan
	if scan.Parse(wire.RangeResponse, part) != nil || scan.Normalised {
		return dst, false
	}
	c.hear(scan)
	aside, st, err := c.session.openingKeys(atOnce, c.rules, w)
	if c.ahead.failed = st; aside || st != nil || err != nil {
		return dst, false
	}
	out := scan.AppendFunc(dst, w.openValue)
	c.ahead.failed = c.session.opened(w)
	return out, c.ahead.failed == nil
}

// hear notes a response's header.
func (c *call) hear(scan *wire.Scan) {
	if scan.HasHeader {
		c.ahead.header = scan.Header
		c.session.heard(scan.Header, c.floor)
	}
}

// response opens one response, or what Ahead has left of it. The error is errWait
// or nil.
func (c *call) response(ctx context.Context, w *scratch, msg []byte) (relay.Verdict, error) {
	out, st, err := msg[:c.ahead.done], c.ahead.failed, error(nil)
	if st == nil && (c.ahead.done < len(msg) || len(msg) == 0) {
		out, st, err = c.openRest(ctx, w, msg)
	}
	if err != nil {
		return relay.Verdict{}, err
	}
	all := c.ahead
	c.ahead = progress{}
	if st != nil {
		if c.writes && all.header.Revision > 0 {
			st = appliedRefusal(st, all.header.Revision)
		}
		return refuse(st), nil
	}
	if all.room {
		out = wire.PutStreamHeader(out)
	}
	return relay.Verdict{Msg: out}, nil
}

// openRest opens what Ahead has left of a response, in its memory, and returns all
// of it. The error is errWait or nil.
func (c *call) openRest(ctx context.Context, w *scratch, msg []byte) ([]byte, *relay.Status, error) {
	scan, a, kind := &w.scan, &c.ahead, c.method.Response
	if a.room {
		kind = wire.RangeResponse
	}
	if err := scan.Parse(kind, msg[a.done:]); err != nil {
		return nil, refusal(codes.DataLoss, "etcd's answer cannot be read: %v", err), nil
	}
	c.hear(scan)
	before := msg[:a.done]
	if scan.Normalised { // its memory is another
		before = nil
	}
	out, st, err := c.session.open(ctx, c.rules, w, before)
	if st != nil || err != nil {
		return nil, st, err
	}
	if scan.Normalised {
		out = append(msg[:a.done:a.done], out...)
	}
	return out, nil, nil
}
