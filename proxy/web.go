package proxy

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/proxy/gateway"
	"github.com/etcdseal/etcdseal/proxy/relay"
)

// Limits of HTTP/1.1 connections. Requests that go on for long are those of watches,
// so that only their beginning has a time limit.
const (
	webHeaderTime  = 10 * time.Second
	webIdleTime    = 3 * time.Minute
	webHeaderBytes = 64 << 10
)

// web is the part of a Server that answers HTTP without gRPC: etcd's JSON API and
// what it says of itself. The same handler gets requests of HTTP/2, by Route, and of
// HTTP/1.1 connections, which one http.Server reads.
type web struct {
	server *Server
	secure bool  // etcd speaks TLS
	memory int64 // for JSON that is read

	once    sync.Once // of handler and conn
	handler *gateway.Handler
	conn    *grpc.ClientConn

	http   http.Server
	conns  chan net.Conn
	closed chan struct{} // no more conns
	served sync.WaitGroup
	open   context.Context // ends when all connections have
	ended  context.CancelFunc
	stop   context.Context // ends long requests at a shutdown
	end    context.CancelFunc
}

func newWeb(s *Server, c Config) *web {
	w := &web{server: s, secure: c.TLS, memory: c.Memory, conns: make(chan net.Conn), closed: make(chan struct{})}
	w.open, w.ended = context.WithCancel(s.ctx)
	w.stop, w.end = context.WithCancel(w.open)
	w.http = http.Server{
		Handler:           http.HandlerFunc(w.serveHTTP1),
		ReadHeaderTimeout: webHeaderTime,
		IdleTimeout:       webIdleTime,
		MaxHeaderBytes:    webHeaderBytes,
		ErrorLog:          log.New(io.Discard, "", 0), // it would repeat what clients sent
		Protocols:         new(http.Protocols),
	}
	w.http.Protocols.SetHTTP1(true)
	return w
}

// gateway returns the handler, which is made when it is first needed.
func (w *web) gateway() *gateway.Handler {
	w.once.Do(func() {
		s := w.server
		conn, err := s.Loopback("")
		if err != nil {
			panic(err) // its target is a constant that can be parsed
		}
		w.conn = conn
		w.handler = gateway.New(gateway.Config{
			Proxy: conn, Dial: w.dial, TLS: w.secure, Token: s.upstream.Token, MaxRequest: s.maxRequest, Memory: w.memory,
			Logger: s.logger, Observe: s.metrics.answeredHTTP,
		})
	})
	return w.handler
}

// dial connects to etcd and names it as a Host header does.
func (w *web) dial(ctx context.Context) (net.Conn, string, func(), error) {
	conn, err := w.server.upstream.Dial(ctx)
	if err != nil {
		return nil, "", nil, err
	}
	host := "localhost"
	if u, err := url.Parse(conn.Endpoint()); err == nil && u.Host != "" {
		host = u.Host
	}
	return conn.Conn, host, func() { _ = conn.Close() }, nil // it may be closed already
}

// route is the route of a request that is not gRPC.
func (w *web) route(path string) relay.Route {
	path, _, _ = strings.Cut(path, "?")
	return relay.Route{Serve: w.gateway(), Long: gateway.Long(path), Method: otherMethod}
}

// start lets HTTP/1.1 connections be served.
func (w *web) start() {
	w.served.Go(func() { _ = w.http.Serve(listener{w}) })
}

// serve serves a connection from which read has been read, and returns when it is closed.
func (w *web) serve(conn net.Conn, read []byte) {
	_ = conn.SetReadDeadline(time.Time{})
	c := &handedConn{Conn: conn, read: read, closed: make(chan struct{})}
	select {
	case w.conns <- c:
		<-c.closed
	case <-w.closed:
	}
}

// serveHTTP1 is the handler of HTTP/1.1. It counts as a part of its connection, so
// that a shutdown waits for it.
func (w *web) serveHTTP1(to http.ResponseWriter, r *http.Request) {
	w.server.clients.conns.Add(1)
	defer w.server.clients.conns.Done()
	if gateway.Long(r.URL.Path) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(w.stop, cancel)()
		r = r.WithContext(ctx)
	}
	w.gateway().ServeHTTP(to, r)
}

// shutdown ends HTTP/1.1 connections: those without a request, and those whose
// request does not end by itself, at once.
func (w *web) shutdown() {
	w.end()
	close(w.closed)
	w.served.Go(func() { _ = w.http.Shutdown(w.open) }) // what it says is of no use
}

// close frees what is left when no connection is.
func (w *web) close() {
	w.ended()
	_ = w.http.Close() // nothing is open any more
	w.served.Wait()
	w.gateway()
	_ = w.conn.Close()
}

// listener hands connections over to the http.Server.
type listener struct{ web *web }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.web.conns:
		return c, nil
	case <-l.web.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l listener) Close() error { return nil }

// Addr implements net.Listener.
func (l listener) Addr() net.Addr { return l.web.server.listener.Addr() }

// handedConn is a connection of which something was read already, and that tells when
// it is closed.
type handedConn struct {
	net.Conn
	read   []byte // one goroutine reads
	once   sync.Once
	closed chan struct{}
}

// Read implements net.Conn.
func (c *handedConn) Read(b []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(b, c.read)
		c.read = c.read[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// Close implements net.Conn.
func (c *handedConn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// CloseWrite lets the http.Server end what it sends before it closes.
func (c *handedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
