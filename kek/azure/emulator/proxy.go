package emulator

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// ListenProxy answers as an HTTP proxy on a TCP address, until Close: CONNECT to the
// port 443 of a vault or a login host leads to the emulator, and nowhere else. So a
// program that heeds HTTPS_PROXY, and trusts CA by SSL_CERT_FILE or the like, uses the
// emulator under the real names with nothing else changed.
func (s *Server) ListenProxy(ctx context.Context, address string) (net.Addr, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.served.Go(func() { _ = s.proxy.Serve(l) })
	return l.Addr(), nil
}

// serveProxy carries one connection through to vaults and login.
func (s *Server) serveProxy(w http.ResponseWriter, r *http.Request) {
	name, port, err := net.SplitHostPort(r.Host)
	if r.Method != http.MethodConnect || err != nil || port != "443" || !s.isKnown(strings.ToLower(name)) {
		http.Error(w, "this proxy leads to the emulator's own hosts, by CONNECT to port 443, and nowhere else", http.StatusForbidden)
		return
	}
	if !s.enter() {
		return
	}
	defer s.served.Done()
	inner, err := s.pipes.dial(r.Context())
	if err != nil {
		return // the Server or the client is gone
	}
	defer inner.Close()
	w.WriteHeader(http.StatusOK)
	outer, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer outer.Close()
	s.join(outer, buffered, inner)
}

// enter counts a connection in that Close waits for, unless the Server is closed.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return false
	default:
		s.served.Add(1)
		return true
	}
}

// join copies between two connections until one of them ends, or the Server does. What
// the client sent is read from buffered.
func (s *Server) join(outer net.Conn, buffered io.Reader, inner net.Conn) {
	ended := make(chan struct{}, 2)
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(inner, buffered); ended <- struct{}{} })
	both.Go(func() { _, _ = io.Copy(outer, inner); ended <- struct{}{} })
	select {
	case <-ended:
	case <-s.closed:
	}
	_, _ = outer.Close(), inner.Close()
	both.Wait()
}
