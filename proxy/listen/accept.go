package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/etcdseal/etcdseal/proxy/socket"
)

// Accept waits for the next connection and returns it, a *socket.Conn, before a single byte of it was read: pass it to Handshake in a goroutine of its own. Failures that
// pass (no file descriptor left, a peer that was gone before it was accepted) are logged and waited out. Any error that is returned is final; it
// is net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	delay := 5 * time.Millisecond
	for {
		conn, err := l.net.Accept()
		if err == nil {
			return socket.New(conn), nil
		}
		select {
		case <-l.closing:
			return nil, fmt.Errorf("accepting connection: %w", net.ErrClosed)
		default:
		}
		if !passes(err) {
			return nil, fmt.Errorf("accepting connection: %w", err)
		}
		l.logger.Warn("connection not accepted, trying again", "error", err, "delay", delay)
		select {
		case <-l.closing:
		case <-time.After(delay):
		}
		delay = min(2*delay, time.Second)
	}
}

// passes says whether a failed accept may succeed later (accept(2)).
func passes(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Handshake makes an accepted connection ready for use. With TLS it does the handshake, bounded by ctx and by the configured timeout, and returns the
// *tls.Conn and the protocol that was negotiated: ProtocolHTTP2, ProtocolHTTP1, or empty for a client that offered none. Without TLS it returns the
// connection as it is and an empty protocol. An empty protocol means: look at the first bytes. On an error the connection is closed.
func (l *Listener) Handshake(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
	if l.source == nil {
		return conn, "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	secured := tls.Server(conn, l.source.Config())
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error says more
		return nil, "", fmt.Errorf("doing TLS handshake with client %s: %w", conn.RemoteAddr(), err)
	}
	return secured, secured.ConnectionState().NegotiatedProtocol, nil
}

// Addr returns the address that clients connect to, with the port that was chosen if port 0 was asked for.
func (l *Listener) Addr() net.Addr { return l.addr }

// Reload reads the certificate files now. On an error the ones in use stay. Without TLS it does nothing.
func (l *Listener) Reload() error {
	if l.source == nil {
		return nil
	}
	return l.source.Reload()
}

// CertificateExpiry returns when the server's certificate in use expires, and false without TLS.
func (l *Listener) CertificateExpiry() (time.Time, bool) {
	if l.source == nil {
		return time.Time{}, false
	}
	return l.source.Leaf().NotAfter, true
}

// Close stops listening and removes a unix socket, unless somebody else has put another one there. Connections that were accepted stay open. It may be
// called more than once.
func (l *Listener) Close() error { return l.close() }

// shut is Close's work, done once. The socket's file goes first, so that nobody who finds it is refused.
func (l *Listener) shut() error {
	close(l.closing)
	var removed error
	if l.remove != nil {
		removed = l.remove()
	}
	return errors.Join(removed, l.net.Close())
}
