package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/etcdseal/etcdseal/migrate"
)

// linesEvery is how often there is a line where there is no terminal.
const linesEvery = 10 * time.Second

// progress shows how far a job is, on standard error: as a bar on a terminal, by a line
// now and then elsewhere.
type progress struct {
	s     streams
	tty   bool
	on    bool
	bar   *progressbar.ProgressBar
	pass  int
	now   func() time.Time
	next  time.Time // of lines
	began time.Time // the pass
}

func newProgress(s streams, on bool) *progress {
	p := &progress{s: s, on: on, now: time.Now}
	if file, ok := s.err.(*os.File); ok {
		p.tty = term.IsTerminal(int(file.Fd()))
	}
	return p
}

// show takes in what package migrate says.
func (p *progress) show(now migrate.Progress) {
	switch {
	case !p.on:
	case p.tty:
		p.draw(now)
	default:
		p.line(now)
	}
}

// line prints how far a pass is, at what rate, and how long the rest takes at that.
func (p *progress) line(now migrate.Progress) {
	at := p.now()
	if p.pass != now.Pass {
		p.pass, p.began, p.next = now.Pass, at, at.Add(linesEvery)
	}
	if at.Before(p.next) {
		return
	}
	p.next = at.Add(linesEvery)
	rate := float64(now.Scanned) / at.Sub(p.began).Seconds()
	rest := "?"
	if rate > 0 {
		rest = time.Duration(float64(max(now.Total-now.Scanned, 0)) / rate * float64(time.Second)).Round(time.Second).String()
	}
	fmt.Fprintf(p.s.err, "pass %d: %d of %d keys, %d values written, %.0f keys/s, %s left\n", now.Pass, now.Scanned, now.Total, now.Changed, rate, rest)
}

func (p *progress) draw(now migrate.Progress) {
	if p.bar == nil || p.pass != now.Pass {
		p.end()
		p.pass = now.Pass
		p.bar = progressbar.NewOptions64(max(now.Total, 1),
			progressbar.OptionSetWriter(p.s.err), progressbar.OptionSetDescription(fmt.Sprintf("pass %d", now.Pass)),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("keys"),
			progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth())
	}
	_ = p.bar.Set64(min(now.Scanned, p.bar.GetMax64())) // a bar that cannot be drawn stops nothing
}

// end leaves the bar as it is and goes on below it.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Exit()
		fmt.Fprintln(p.s.err)
		p.bar = nil
	}
}
