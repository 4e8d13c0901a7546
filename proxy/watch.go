package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// allWatches is the watch_id of a progress notification for a whole stream.
const allWatches = -1

// watch is the codec of one Watch stream, which carries many watches. Events
// are opened, under the rules of the moment since a watch may last for days; a
// watch whose event cannot be opened is cancelled, once, and the
// others go on.
type watch struct {
	session *session

	mu sync.Mutex
	// ended are the watches that were cancelled here and that etcd has not yet
	// said to be cancelled. What comes for them is dropped.
	ended map[int64]bool
}

// Rewrite implements relay.Codec.
func (c *watch) Rewrite(d relay.Direction, msg, _ []byte) relay.Verdict {
	return c.rewrite(atOnce, d, msg)
}

// Wait implements relay.Codec.
func (c *watch) Wait(ctx context.Context, d relay.Direction, msg []byte) relay.Verdict {
	defer c.session.metrics.parked(time.Now())
	return c.rewrite(ctx, d, msg)
}

// Lane implements relay.Codec: the events of one watch stay in order, and a
// progress notification for all of them stays behind what came before it.
func (c *watch) Lane(d relay.Direction, msg []byte) (int64, bool) {
	if d == relay.Request {
		return 0, true
	}
	w := scratches.Get().(*scratch)
	defer w.release()
	if w.scan.Parse(wire.WatchResponse, msg) != nil {
		return 0, true
	}
	id := w.scan.Watch.ID
	return id, id == allWatches
}

func (c *watch) rewrite(ctx context.Context, d relay.Direction, msg []byte) relay.Verdict {
	w := scratches.Get().(*scratch)
	defer w.release()
	if d == relay.Request {
		if err := w.scan.Parse(wire.WatchRequest, msg); err != nil {
			return relay.Verdict{Msg: unreadable()}
		}
		return relay.Verdict{Msg: w.scan.Msg}
	}
	if err := w.scan.Parse(wire.WatchResponse, msg); err != nil {
		return refuse(refusal(codes.DataLoss, "etcd's answer cannot be read: %v", err))
	}
	id := w.scan.Watch.ID
	if c.dropped(id, w.scan.Watch.Canceled) {
		return relay.Verdict{Action: relay.Drop}
	}
	out, st, err := c.session.open(ctx, c.session.server.rules.Load(), w, nil)
	if errors.Is(err, errWait) {
		return relay.Verdict{Action: relay.Park}
	}
	if st != nil {
		return c.cancel(&w.scan, id, st)
	}
	return relay.Verdict{Msg: out}
}

// dropped reports whether a response belongs to a watch that was cancelled
// here. etcd's own word of its end is the last of them.
func (c *watch) dropped(id int64, canceled bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended[id] {
		return false
	}
	if canceled {
		delete(c.ended, id)
	}
	return true
}

// cancel ends one watch: the client is told why, etcd to stop.
func (c *watch) cancel(scan *wire.Scan, id int64, st *relay.Status) relay.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = map[int64]bool{}
	}
	c.ended[id] = true
	c.session.metrics.watchCancelled()
	return relay.Verdict{
		Msg:   wire.AppendCanceledWatchResponse(nil, scan.Header, id, st.Message),
		Reply: wire.AppendWatchCancelRequest(nil, id),
	}
}
