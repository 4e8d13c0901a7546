package azure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/kek"
)

// Pauses after a vault, or the login service, asked for one. It says for how long, or pauseFirst is
// doubled each time up to pauseLast. What it says is believed up to pauseMost, so
// that an answer gone wrong does not close a key for days.
const (
	pauseFirst = time.Second
	pauseLast  = time.Minute
	pauseMost  = 5 * time.Minute
)

// gate keeps calls away from a vault that asked to be left alone, or whose login
// service did.
type gate struct {
	mu      sync.Mutex // guards all below
	until   time.Time
	reason  shut // to those who are turned away
	strikes int  // pauses in a row without one answer between them
}

// shut is why a call is not made.
type shut struct {
	class kek.Class
	whom  string // who asked to be left alone
	left  time.Duration
}

// explain says so; before is what was said to this call.
func (s shut) explain(before error) error {
	text := fmt.Sprintf("%s asked to be left alone, which lasts another %v", s.whom, s.left.Round(time.Millisecond))
	if before == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%w; %s", before, text)
}

// wait waits until calls may pass. If that is not before ctx ends, it says so at once.
func (g *gate) wait(ctx context.Context) *shut {
	for {
		g.mu.Lock()
		turned := g.reason
		turned.left = time.Until(g.until)
		g.mu.Unlock()
		if turned.left <= 0 {
			return nil
		}
		if deadline, bounded := ctx.Deadline(); bounded && time.Until(deadline) <= turned.left {
			return &turned
		}
		timer := time.NewTimer(turned.left)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &turned
		}
	}
}

// pause closes the gate: for as long as was said, or for longer each time if nothing
// was. Answers to calls that were under way count once.
func (g *gate) pause(class kek.Class, said time.Duration, whom string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	first := !now.Before(g.until)
	pause := min(said, pauseMost)
	if said <= 0 {
		if !first {
			return
		}
		pause = min(pauseFirst<<min(g.strikes, 10), pauseLast)
		pause = pause*3/4 + rand.N(pause/2)
	}
	if first {
		g.strikes++
	}
	if until := now.Add(pause); until.After(g.until) {
		g.until, g.reason = until, shut{class: class, whom: whom}
	}
}

// pass notes that the vault answered.
func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.strikes = 0
}

// retryAfter returns how long an answer asks to wait (RFC 9110, section 10.2.3, and
// the service's own headers in milliseconds); 0 if it does not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const most = int64(24 * time.Hour / time.Millisecond)
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if ms, err := strconv.ParseInt(h.Get(name), 10, 64); err == nil && ms > 0 {
			return time.Duration(min(ms, most)) * time.Millisecond
		}
	}
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(max(0, min(seconds, most/1000))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, min(at.Sub(now), 24*time.Hour))
	}
	return 0
}
