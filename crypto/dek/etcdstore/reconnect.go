package etcdstore

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"
)

// reconnectEvery is how often Reconnect does something: where endpoints name members of
// two clusters for good, it helps nobody to break connections all the time.
const reconnectEvery = 5 * time.Second

// connections are those that a Store has open.
type connections struct {
	mu   sync.Mutex // guards all below
	open map[*connection]bool
	last time.Time // when they were last closed by Reconnect
}

// connection takes itself off the list when it is closed.
type connection struct {
	net.Conn
	list *connections
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.list.mu.Lock()
	delete(c.list.open, c)
	c.list.mu.Unlock()
	return c.Conn.Close()
}

// dial connects to an address as gRPC names it: host:port, or unix: and a path.
func (l *connections) dial(ctx context.Context, address string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", strings.TrimPrefix(path, "//")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &connection{conn, l}
	if l.open == nil {
		l.open = make(map[*connection]bool)
	}
	l.open[c] = true
	return c, nil
}

// Reconnect implements dek.Reconnecter. What is under way fails as
// dek.ErrStoreUnavailable, the watch begins again with everything.
func (s *Store) Reconnect() {
	l := &s.connections
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= reconnectEvery {
		l.last = now
		for c := range l.open {
			_ = c.Conn.Close() // gRPC closes it again when it reads from it, which takes it off the list
		}
	}
}
