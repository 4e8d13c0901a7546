// Package proxy is etcdseal's server: it pairs each client's connection with
// one to etcd and decides, stream by stream and value by value, what is
// sealed, opened, refused or passed.
//
// The parts: relay carries HTTP/2, wire finds values in messages, crypto/dek
// has the keys, listen and upstream make the connections. This package ties
// them together and holds the policy: the rules, the reserved prefix, and the
// check that a value is only ever sealed with a DEK whose record is in the etcd
// that the value goes to.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/proxy/listen"
	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// Defaults of Config.
const (
	DefaultMaxRequest    = 2 << 20
	DefaultMemory        = 256 << 20
	DefaultShutdownGrace = 5 * time.Second
)

// prefaceTime bounds the wait for a client's first bytes.
const prefaceTime = 10 * time.Second

// Config is what a Server works with.
type Config struct {
	// Listener is where clients connect. Serve closes it.
	Listener *listen.Listener
	// Upstream connects to etcd. Somebody else runs and closes it.
	Upstream *upstream.Pool
	// TLS says that the upstream's endpoints speak TLS.
	TLS bool
	// Keyring has the DEKs. Somebody else runs and closes it.
	Keyring *dek.Manager
	// Reserved is the prefix of etcd keys that hold the keyring; empty if it is
	// not in this etcd.
	Reserved string
	// Rules are the first rules; see SetRules.
	Rules *Rules
	// MaxRequest is the largest request message in bytes; 0 is
	// DefaultMaxRequest, etcd's own default.
	MaxRequest int
	// Memory bounds the large messages that are being put together, in bytes;
	// 0 is DefaultMemory.
	Memory int64
	// AllowMethods are paths of gRPC methods that etcd does not have and that
	// are forwarded untouched all the same.
	AllowMethods []string
	// Advertise, if not empty, is what lists of members name in place of their
	// client URLs.
	Advertise []string
	// ShutdownGrace is how long calls in flight may go on when Serve's context
	// ends; 0 cuts them off.
	ShutdownGrace time.Duration
	// Metrics counts; nil counts for nobody.
	Metrics *Metrics
	// Logger gets changes of state at Info; nil is none.
	Logger *slog.Logger
}

// Server serves etcd's clients. Use New.
type Server struct {
	listener   *listen.Listener
	upstream   *upstream.Pool
	keyring    *dek.Manager
	reserved   []byte
	rules      atomic.Pointer[Rules]
	maxRequest int
	allowed    map[string]bool
	advertise  []string
	grace      time.Duration
	metrics    *metrics
	logger     *slog.Logger
	relay      relay.Config

	ctx    context.Context // ends when connections are to be cut
	cancel context.CancelFunc

	mu      sync.Mutex // guards what group says
	clients group      // clients' connections
	loops   group      // connections to the server itself, which clients' calls may need
	web     *web
	gaveUp  atomic.Int64 // when a connection was last given up, Unix nanoseconds
	cutOff  atomic.Bool  // the last try to connect to etcd failed

	wholeReads chan struct{} // has an element for each assisted call under way that reads whole key ranges
}

// New returns a server that does not serve yet.
func New(c Config) *Server {
	if c.MaxRequest == 0 {
		c.MaxRequest = DefaultMaxRequest
	}
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	s := &Server{
		listener: c.Listener, upstream: c.Upstream, keyring: c.Keyring,
		maxRequest: c.MaxRequest, allowed: map[string]bool{}, advertise: c.Advertise, grace: c.ShutdownGrace,
		metrics: &c.Metrics.metrics, logger: c.Logger, wholeReads: make(chan struct{}, wholeReads),
	}
	if c.Reserved != "" {
		s.reserved = []byte(c.Reserved)
	}
	for _, path := range c.AllowMethods {
		s.allowed[path] = true
	}
	s.relay = relay.Config{Budget: relay.NewBudget(c.Memory), Scheme: "http", Observer: s.metrics}
	if c.TLS {
		s.relay.Scheme = "https"
	}
	s.rules.Store(c.Rules)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.web = newWeb(s, c)
	return s
}

// SetRules makes new calls, and what watches see from now on, follow other rules.
// Calls that are under way keep the ones they began with.
func (s *Server) SetRules(r *Rules) { s.rules.Store(r) }

// Serve accepts connections until ctx ends. Then it asks clients to go
// elsewhere, lets calls in flight finish for as long as ShutdownGrace allows,
// and closes what is left. Watches are not waited for.
func (s *Server) Serve(ctx context.Context) error {
	defer s.cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	s.web.start()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			s.shutdown()
			if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		s.clients.conns.Go(func() { s.serve(conn) })
	}
}

// giveUpEvery is how often a connection may be given up since nothing can be sealed
// on it. A new one is checked anew; if that never helps, keys under no rule, which
// share the connection, shall hardly notice.
const giveUpEvery = 5 * time.Second

// mayGiveUp reports whether it is time to give another connection up.
func (s *Server) mayGiveUp() bool {
	now, last := time.Now().UnixNano(), s.gaveUp.Load()
	return now-last >= int64(giveUpEvery) && s.gaveUp.CompareAndSwap(last, now)
}

// shutdown ends all connections, those without calls in flight at once, and those to
// the server itself last.
func (s *Server) shutdown() {
	cut := time.AfterFunc(s.grace, s.cancel)
	defer cut.Stop()
	s.close(&s.clients)
	s.web.shutdown()
	s.clients.conns.Wait()
	s.web.close()
	s.close(&s.loops)
	s.loops.conns.Wait()
}

// serve carries one client's connection.
func (s *Server) serve(conn net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer stop()
	s.metrics.connections.Inc()
	defer s.metrics.connections.Dec()
	conn, protocol, err := s.listener.Handshake(s.ctx, conn)
	if err != nil {
		s.logger.Debug("TLS handshake failed", "error", err.Error())
		return
	}
	defer conn.Close()
	if protocol == listen.ProtocolHTTP1 {
		s.web.serve(conn, nil)
		return
	}
	client, read, err := relay.ReadPreface(conn, prefaceTime)
	if errors.Is(err, relay.ErrNotHTTP2) && protocol == "" {
		if read, ok := readHTTP1(conn, read); ok {
			s.web.serve(conn, read)
		}
		return
	}
	if err != nil {
		return
	}
	s.carry(&s.clients, client, s.relay, s.upstream.Dial, loop{})
}

// carry connects a client to etcd and carries what they say until either ends.
func (s *Server) carry(g *group, client *relay.Client, cfg relay.Config, dial func(context.Context) (*upstream.Conn, error), l loop) {
	up, err := dial(s.ctx)
	s.noteDial(err)
	if err != nil {
		return
	}
	defer up.Close()
	s.pair(g, cfg, client, up, l)
}

// noteDial logs at Warn that etcd cannot be connected to, once until it can be again: a
// client may try many times a second.
func (s *Server) noteDial(err error) {
	switch {
	case s.ctx.Err() != nil:
	case err == nil:
		if s.cutOff.Load() && s.cutOff.Swap(false) {
			s.logger.Info("connected to etcd again")
		}
	case !s.cutOff.Swap(true):
		s.logger.Warn("no connection to etcd, clients are turned away until there is one", "error", err.Error())
	default:
		s.logger.Debug("no connection to etcd", "error", err.Error())
	}
}

// pair runs a pair until it ends.
func (s *Server) pair(g *group, cfg relay.Config, client *relay.Client, up *upstream.Conn, l loop) {
	session := newSession(s, up.Endpoint())
	session.loop = l
	defer session.close()
	p := relay.New(cfg, session, client, up.Conn)
	s.add(g, p)
	ended := make(chan struct{})
	g.conns.Go(func() {
		select {
		case <-up.Drain():
			p.Shutdown()
		case <-ended:
		}
	})
	err := p.Run(s.ctx)
	close(ended)
	s.remove(g, p)
	if errors.Is(err, relay.ErrSilent) || errors.Is(err, relay.ErrNoSettings) {
		up.Suspect(err.Error())
	}
	if err != nil && s.ctx.Err() == nil {
		s.logger.Debug("connection ended", "endpoint", up.Endpoint(), "error", err.Error())
	}
}

// ownMetadata is what the proxy's own calls carry.
func (s *Server) ownMetadata(ctx context.Context) ([]hpack.HeaderField, string, error) {
	token, err := s.upstream.Token(ctx)
	if err != nil || token == "" {
		return nil, "", err
	}
	return []hpack.HeaderField{{Name: "token", Value: token, Sensitive: true}}, token, nil
}

func (s *Server) forgetToken(token string) {
	if token != "" {
		s.upstream.Invalidate(token)
	}
}
