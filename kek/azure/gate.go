package azure

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/kek"
)

// Pauses after a vault asked for one. It says for how long, or pauseFirst is
// doubled each time up to pauseLast. What it says is believed up to pauseMost, so
// that an answer gone wrong does not close a key for days.
const (
	pauseFirst = time.Second
	pauseLast  = time.Minute
	pauseMost  = 5 * time.Minute
)

// gate keeps calls away from a vault that asked to be left alone.
type gate struct {
	mu      sync.Mutex // guards all below
	until   time.Time
	class   kek.Class // of those who are turned away
	strikes int       // pauses in a row without one answer between them
}

// wait waits until calls may pass. If that is not before ctx ends, it returns false
// and how long it will be at once.
func (g *gate) wait(ctx context.Context) (left time.Duration, class kek.Class, ok bool) {
	for {
		g.mu.Lock()
		left, class := time.Until(g.until), g.class
		g.mu.Unlock()
		if left <= 0 {
			return 0, 0, true
		}
		if deadline, bounded := ctx.Deadline(); bounded && time.Until(deadline) <= left {
			return left, class, false
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return left, class, false
		}
	}
}

// pause closes the gate: for as long as the vault said, or for longer each time if
// it said nothing. Answers to calls that were under way count once.
func (g *gate) pause(class kek.Class, said time.Duration) {
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
		g.until, g.class = until, class
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
