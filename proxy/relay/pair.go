package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// ErrNoSettings says that the upstream did not begin to speak HTTP/2.
var ErrNoSettings = errors.New("relay: no HTTP/2 settings from the upstream")

// errEnded ends a pair whose streams have all ended after a GOAWAY.
var errEnded = errors.New("relay: all streams have ended")

// drainTime bounds how long answers that are complete may take to reach a
// client whose upstream has gone.
const drainTime = 5 * time.Second

// lingerTime is how long a client may take to close a connection that has
// ended.
const lingerTime = time.Second

// Pair is a client's connection and its upstream connection. Use New, then
// Run; the other methods are safe for concurrent use.
type Pair struct {
	cfg     Config
	session Session

	// mu guards everything below and the parts of legs and streams that say so.
	mu      sync.Mutex
	ctx     context.Context
	cancel  context.CancelFunc
	legs    [2]*leg // by the direction that comes in on them: client, upstream
	streams map[uint32]*stream
	err     error // why the pair ended
	closed  bool

	lastID     uint32 // highest stream that the client opened
	answeredID uint32 // highest stream that was answered without the upstream
	opened     int    // streams open upstream, the proxy's own included

	goAwaySent  bool
	goAwayLast  uint32 // of the last GOAWAY to the client
	draining    bool   // the client was asked to go elsewhere
	drainPinged bool
	upstreamEnd bool // the upstream's connection has ended
	ended       bool // all is done, and the client is to close

	own       ownCall
	keepalive keepalive
	work      sync.WaitGroup
}

// New makes a pair of a client's connection, whose preface ReadPreface has
// taken, and an upstream connection. It takes both over.
func New(cfg Config, session Session, client *Client, upstream net.Conn) *Pair {
	p := &Pair{cfg: cfg.withDefaults(), session: session, streams: map[uint32]*stream{}}
	p.legs[Request] = newLeg(client.conn, client.rd)
	p.legs[Response] = newLeg(upstream, newReader(upstream))
	return p
}

// Run carries frames until either connection ends, the context does, or all
// streams have ended after Shutdown; then both are closed. It returns nil when
// the end was orderly.
func (p *Pair) Run(ctx context.Context) error {
	p.ctx, p.cancel = context.WithCancel(ctx)
	defer p.cancel()
	stop := context.AfterFunc(p.ctx, func() { p.fail(context.Cause(p.ctx)) })
	defer stop()
	if err := p.greet(); err != nil {
		p.fail(err)
		return err
	}
	p.startKeepalive()
	p.work.Add(1)
	go func() { defer p.work.Done(); p.read(Response) }()
	p.read(Request)
	p.cancel()
	p.work.Wait()
	p.finish()
	if errors.Is(p.err, errEnded) || errors.Is(p.err, io.EOF) {
		return nil
	}
	return p.err
}

// greet brings the upstream's connection up and only then answers the client:
// a dead upstream must not look ready.
func (p *Pair) greet() error {
	up := p.legs[Response]
	_ = up.conn.SetDeadline(time.Now().Add(p.cfg.SettingsTimeout))
	b := append(up.room(), http2.ClientPreface...)
	b = appendSettings(b,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
	up.put(appendWindowUpdate(b, 0, connWindow-defaultWindow))
	p.flush()
	f, err := up.rd.next()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoSettings, err)
	}
	if f.typ != http2.FrameSettings || f.has(http2.FlagSettingsAck) {
		return fmt.Errorf("%w: the first frame is another", ErrNoSettings)
	}
	up.greeted = true
	_ = up.conn.SetDeadline(time.Time{})
	own, err := p.session.Start(p.ctx, p.Shutdown)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.flush()
	defer p.mu.Unlock()
	client := p.legs[Request]
	client.put(appendSettings(client.room(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow}))
	err = p.onSettings(Response, f)
	client.put(appendWindowUpdate(client.room(), 0, connWindow-defaultWindow))
	if err != nil || own == nil {
		return err
	}
	return p.own.open(p, own)
}

// read carries the frames that come in on one leg until it ends.
func (p *Pair) read(d Direction) {
	l := p.legs[d]
	defer l.rd.release()
	for {
		f, err := l.rd.next()
		if err == nil {
			err = p.onFrame(d, f)
		}
		if err != nil {
			p.readEnded(d, err)
			return
		}
		if !l.rd.ready() || p.crowded(1-d) {
			p.flush()
		}
	}
}

// crowded reports whether a leg has enough to write already.
func (p *Pair) crowded(d Direction) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.legs[d].pending() >= outSoft || p.legs[1-d].pending() >= outSoft
}

// readEnded winds the pair up after one leg's reader has stopped.
func (p *Pair) readEnded(d Direction, err error) {
	var ce connError
	p.mu.Lock()
	l := p.legs[d]
	if errors.As(err, &ce) {
		last := p.lastID
		if d == Response {
			last = 0
		}
		l.put(appendGoAway(l.room(), last, ce.code, ce.reason))
	}
	wait := false
	if d == Response && !p.closed {
		wait = p.upstreamEnded()
	}
	p.mu.Unlock()
	if wait {
		p.flush()
		return
	}
	// What either peer sent before the end still counts.
	deadline := time.Now().Add(time.Second)
	for _, l := range p.legs {
		_ = l.conn.SetWriteDeadline(deadline)
	}
	p.flush()
	p.fail(err)
}

// upstreamEnded keeps the client's leg open while answers that are complete
// are on their way, and reports whether there are any.
func (p *Pair) upstreamEnded() bool {
	p.upstreamEnd = true
	p.legs[Response].broken = true
	for _, s := range p.streams {
		if h := &s.half[Response]; h.endIn && len(h.queue)+len(h.entries) > 0 {
			p.goAway(p.lastID, http2.ErrCodeNo)
			time.AfterFunc(drainTime, func() { p.fail(io.EOF) })
			return true
		}
	}
	return false
}

// fail ends the pair at once: both connections are closed. The first call's
// error is kept.
func (p *Pair) fail(err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed, p.err = true, err
	p.mu.Unlock()
	p.cancel()
	for _, l := range p.legs {
		_ = l.conn.Close()
	}
}

// finish lets go of what streams hold, after all goroutines have ended.
func (p *Pair) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keepalive.stop()
	for _, s := range p.streams {
		p.drop(s)
	}
	p.own.fail(p, &Status{Code: codes.Unavailable, Message: "etcdseal: the upstream's connection has ended"})
}

// flush writes what waits for either socket. It returns when there is nothing
// left, or when another goroutine is already writing and will go on.
func (p *Pair) flush() {
	p.mu.Lock()
	p.flushLeg(Response)
	p.flushLeg(Request)
	over := p.over()
	if p.ended {
		over = nil
	}
	p.ended = p.ended || over == errEnded
	p.mu.Unlock()
	switch {
	case over == errEnded:
		p.linger()
	case over != nil:
		p.fail(over)
	}
}

// linger ends the pair so that the client gets all that was sent: a socket
// that is closed with bytes unread would take back what the client has not
// read yet.
func (p *Pair) linger() {
	c, ok := p.legs[Request].conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		p.fail(errEnded)
		return
	}
	time.AfterFunc(lingerTime, func() { p.fail(errEnded) })
}

// over tells whether, and why, the pair is to end now that everything that
// could be written is. Called with mu held.
func (p *Pair) over() error {
	for _, l := range p.legs {
		if l.flooded {
			return connError{http2.ErrCodeEnhanceYourCalm, "control frames without end"}
		}
		if l.writing || l.pending() > 0 && !l.broken {
			return nil
		}
	}
	if p.upstreamEnd {
		for _, s := range p.streams {
			if h := &s.half[Response]; h.endIn && len(h.queue)+len(h.entries) > 0 {
				return nil
			}
		}
		return io.EOF
	}
	if !p.goAwaySent || p.goAwayLast == maxStreamID {
		return nil
	}
	for _, s := range p.streams {
		if !s.long || !p.draining {
			return nil
		}
	}
	return errEnded
}

// flushLeg is flush for one leg; mu is held, but not while writing.
func (p *Pair) flushLeg(d Direction) {
	l := p.legs[d]
	for !l.writing && !l.broken {
		p.pump(1 - d)
		if l.pending() == 0 {
			return
		}
		out := l.out
		l.out = nil
		l.writing = true
		p.mu.Unlock()
		_, err := l.conn.Write(*out)
		*out = (*out)[:0]
		if cap(*out) <= 2*outSoft {
			outBuffers.Put(out)
		}
		p.mu.Lock()
		l.writing = false
		if err != nil {
			p.writeFailed(d, err)
		}
	}
}

// writeFailed gives a leg up for writing. mu is held. A client's end is the
// pair's; what an upstream has still to say is heard first.
func (p *Pair) writeFailed(d Direction, err error) {
	l := p.legs[d]
	l.broken = true
	if d == Request {
		p.mu.Unlock()
		p.fail(err)
		p.mu.Lock()
		return
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(drainTime))
}
