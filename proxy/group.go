package proxy

import (
	"sync"

	"github.com/etcdseal/etcdseal/proxy/relay"
)

// group is connections that end together. Server.mu guards what is not conns.
type group struct {
	pairs   map[*relay.Pair]bool
	closing bool
	conns   sync.WaitGroup // all goroutines that carry them
}

// add takes a pair into a group. One that comes too late is to end at once.
func (s *Server) add(g *group, p *relay.Pair) {
	s.mu.Lock()
	if g.pairs == nil {
		g.pairs = map[*relay.Pair]bool{}
	}
	g.pairs[p] = true
	closing := g.closing
	s.mu.Unlock()
	if closing {
		p.Shutdown()
	}
}

func (s *Server) remove(g *group, p *relay.Pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(g.pairs, p)
}

// close asks the clients of a group to go elsewhere.
func (s *Server) close(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.closing = true
	for p := range g.pairs {
		go p.Shutdown()
	}
}
