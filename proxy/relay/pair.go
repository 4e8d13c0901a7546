package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// ErrNoSettings says that the upstream did not begin to speak HTTP/2.
var ErrNoSettings = errors.New("relay: no HTTP/2 settings from the upstream")

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
	recent  [2]*stream // whose frame came last, by direction; nil if it is over
	err     error      // why the pair ended
	closed  bool

	lastID     uint32 // highest stream that the client opened
	answeredID uint32 // highest stream that was answered without the upstream
	left       leavers
	opened     int // streams open upstream, the proxy's own included
	serving    int // handlers at work

	greeted     bool // the client has been sent its first SETTINGS
	goAwaySent  bool
	goAwayLast  uint32 // of the last GOAWAY to the client
	draining    bool   // the client was, or is to be, asked to go elsewhere
	drainPinged bool
	upstreamEnd bool  // the upstream's connection has ended
	endErr      error // why, when it did
	ended       bool  // all is done, and the client is to close

	drainTimer, endTimer, lingerTimer *time.Timer

	own       ownCall
	keepalive keepalive
	work      sync.WaitGroup
}

// New makes a pair of a client's connection, whose preface ReadPreface has
// taken, and an upstream connection. It takes both over.
func New(cfg Config, session Session, client *Client, upstream net.Conn) *Pair {
	p := &Pair{cfg: cfg.withDefaults(), session: session, streams: map[uint32]*stream{}}
	p.legs[Request] = newLeg(client.conn, client.rd, &p.mu)
	p.legs[Response] = newLeg(upstream, newReader(upstream), &p.mu)
	for d := range p.legs {
		p.legs[d].carryOn = func() { p.carryOn(Direction(d)) }
	}
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
	return result(p.err)
}

// greet brings the upstream's connection up and only then answers the client:
// a dead upstream must not look ready.
func (p *Pair) greet() error {
	settings, err := p.greetUpstream()
	if err != nil {
		return err
	}
	own, err := p.session.Start(p.ctx, p.Shutdown)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.greetClient()
	err = p.onSettings(Response, settings)
	if own != nil {
		p.own.done = own.Done
		if err == nil {
			err = p.own.open(p, own)
		}
		if err != nil {
			p.own.finish(p, nil, &Status{Code: codes.Unavailable, Message: "etcdseal: " + err.Error()})
		}
	}
	if p.draining {
		p.startDrain()
	}
	p.mu.Unlock()
	p.flush(Response)
	return err
}

// greetUpstream says hello to the upstream and waits for its SETTINGS.
func (p *Pair) greetUpstream() (frame, error) {
	up := p.legs[Response]
	_ = up.conn.SetDeadline(time.Now().Add(p.cfg.SettingsTimeout))
	p.mu.Lock()
	b := append(up.room(), http2.ClientPreface...)
	b = appendSettings(b,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: serverWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
	up.put(appendWindowUpdate(b, 0, connWindow-defaultWindow))
	p.flushLocked(Response)
	f, err := up.rd.next()
	if err != nil {
		return f, fmt.Errorf("%w: %w", ErrNoSettings, err)
	}
	if f.typ != http2.FrameSettings || f.has(http2.FlagSettingsAck) {
		return f, fmt.Errorf("%w: the first frame is another", ErrNoSettings)
	}
	up.greeted = true
	_ = up.conn.SetDeadline(time.Time{})
	return f, nil
}

// greetClient says hello to the client; what crosses from the upstream's
// settings follows. mu is held.
func (p *Pair) greetClient() {
	p.greeted = true
	client := p.legs[Request]
	b := appendSettings(client.room(),
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: clientWindow},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(p.cfg.MaxStreams)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
	client.put(appendWindowUpdate(b, 0, connWindow-defaultWindow))
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
		if !l.rd.ready() || p.crowded() {
			p.flushFrom(d)
		}
	}
}

// crowded reports whether a leg has enough to write already.
func (p *Pair) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.legs[Request].full() || p.legs[Response].full()
}
