package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// readiness answers /readyz. One round of checks runs at a time; whoever asks meanwhile waits for it, and if all were ready its results serve for a while
// after. Others do not: who waits for the process to get ready shall learn of it at once.
type readiness struct {
	cfg Config

	mu     sync.Mutex // guards what follows
	round  *round     // the one that goes on or the last one; nil before the first
	busy   []bool     // a call of that check has not returned yet, possibly of an earlier round
	logged string     // the last verdict that was logged
}

// round is one round of checks. Results and ended may be read when done is closed.
type round struct {
	done    chan struct{}
	results []error // by check
	ended   time.Time
}

// ready reports whether all checks were ready. The round has ended.
func (r *round) ready() bool {
	for _, err := range r.results {
		if err != nil {
			return false
		}
	}
	return true
}

// errBusy is the result of a check whose last call outlived its round.
var errBusy = errors.New("the last check has not returned yet")

func newReadiness(cfg Config) *readiness {
	return &readiness{cfg: cfg, busy: make([]bool, len(cfg.Checks))}
}

// ServeHTTP implements http.Handler.
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	current := r.current()
	select {
	case <-current.done:
	case <-req.Context().Done():
		return // nobody is left to answer
	}
	setPlain(w)
	ready := current.ready()
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if !ready || req.URL.Query().Has("verbose") {
		io.WriteString(w, r.lines(current))
		for _, note := range r.cfg.Notes() {
			io.WriteString(w, "[i] "+note+"\n")
		}
	}
	if ready {
		io.WriteString(w, "ok\n")
	} else {
		io.WriteString(w, "not ready\n")
	}
}

// lines lists the results, a line for each check.
func (r *readiness) lines(current *round) string {
	var b strings.Builder
	for i, check := range r.cfg.Checks {
		if err := current.results[i]; err != nil {
			fmt.Fprintf(&b, "[-] %s: %s\n", check.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
		} else {
			fmt.Fprintf(&b, "[+] %s ok\n", check.Name)
		}
	}
	return b.String()
}

// current returns the round to wait for: the one that goes on, the last one if it is fresh, or a new one.
func (r *readiness) current() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.round != nil {
		select {
		case <-r.round.done:
			if r.round.ready() && r.cfg.Now().Sub(r.round.ended) < r.cfg.CacheFor {
				return r.round
			}
		default:
			return r.round
		}
	}
	r.round = &round{done: make(chan struct{}), results: make([]error, len(r.cfg.Checks))}
	go r.run(r.round)
	return r.round
}

// run asks all checks at the same time and ends the round when all have answered or the time is up. The round does not end with the request that began it,
// since others may wait for it, and it is bounded by its timeout.
func (r *readiness) run(current *round) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.CheckTimeout)
	defer cancel()
	answers := make([]chan error, len(r.cfg.Checks))
	for i := range r.cfg.Checks {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- r.ask(ctx, i) }()
	}
	for i := range answers {
		select {
		case current.results[i] = <-answers[i]:
		case <-ctx.Done():
			select {
			case current.results[i] = <-answers[i]: // it was in time
			default:
				current.results[i] = fmt.Errorf("no answer within %s", r.cfg.CheckTimeout)
			}
		}
	}
	current.ended = r.cfg.Now()
	r.log(current)
	close(current.done)
}

// ask calls one check unless an earlier call of it still hangs.
func (r *readiness) ask(ctx context.Context, i int) error {
	r.mu.Lock()
	if r.busy[i] {
		r.mu.Unlock()
		return errBusy
	}
	r.busy[i] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.busy[i] = false
		r.mu.Unlock()
	}()
	return r.cfg.Checks[i].Ready(ctx)
}

// log tells changes of the verdict, that is, of the set of checks that fail.
func (r *readiness) log(current *round) {
	var failed []string
	for i, err := range current.results {
		if err != nil {
			failed = append(failed, r.cfg.Checks[i].Name)
		}
	}
	verdict := "ready"
	if len(failed) > 0 {
		verdict = "not ready: " + strings.Join(failed, ", ")
	}
	r.mu.Lock()
	changed := verdict != r.logged
	r.logged = verdict
	r.mu.Unlock()
	if changed {
		r.cfg.Logger.Info("readiness changed", "verdict", verdict, "detail", strings.TrimSpace(r.lines(current)))
	}
}
