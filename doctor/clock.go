package doctor

import "time"

// Differences between clocks from which they matter: tokens and new certificates may be
// refused; and processes may take an older version of a KEK for the newer one, since that
// is dek.DefaultRotateLag.
const (
	clockWarning = time.Minute
	clockProblem = 15 * time.Minute
)

// reading is what another clock said, to the second, between two readings of this one.
type reading struct{ date, before, after time.Time }

// off returns by how much the other clock is off at least, and whether it is ahead.
func (r reading) off() (by time.Duration, ahead bool) {
	switch last := r.date.Add(time.Second); { // what it said has its fraction cut off
	case last.Before(r.before):
		return r.before.Sub(last), false
	case r.date.After(r.after):
		return r.date.Sub(r.after), true
	}
	return 0, false
}

// compare notes how two clocks compare.
func (r reading) compare(n *notes, area Area, subject, how string) {
	by, ahead := r.off()
	level, do := OK, ""
	switch {
	case by >= clockProblem:
		level, do = Problem, "set the clocks by NTP"
	case by >= clockWarning:
		level, do = Warning, "set the clocks by NTP"
	}
	side := "behind"
	if ahead {
		side = "ahead of"
	}
	if by < time.Second {
		n.add(area, level, subject, do, "that of this machine, to a second (by the %s)", how)
		return
	}
	n.add(area, level, subject, do, "%s %s this machine's (by the %s)", by.Round(time.Second), side, how)
}
