package kmsv2

// Polls that must name another key id before it is believed. Each change doubles that
// number, up to mostSightings, and each time that the believed key id was named in rest
// polls halves it again. So over time a plugin that goes back and forth changes the
// version once in rest polls at most, and one that says another thing each time never
// does.
const (
	fewestSightings = 2
	mostSightings   = 32
	rest            = 32
)

// follower decides which of the key ids that a plugin names is believed. It has no
// lock of its own; its zero value is ready to use.
type follower struct {
	believed  string // empty before the first sighting
	candidate string // another that was named, or empty
	sightings int    // polls in a row that named the candidate
	doublings int    // of fewestSightings
	held      int    // polls that named the believed one since doublings changed
	wavers    int    // how often a candidate was not named again
}

// sighting is what a poll has come to.
type sighting int

const (
	sawSame    sighting = iota // nothing new
	sawFirst                   // the first key id is believed
	sawAnother                 // there is a candidate
	sawChange                  // the candidate is believed
	sawWaver                   // the candidate was dropped
)

// see takes in the key id that a poll named.
func (f *follower) see(id string) sighting {
	switch {
	case f.believed == "":
		f.believed = id
		return sawFirst
	case id == f.believed:
		if f.held++; f.held == rest {
			f.held, f.doublings = 0, max(0, f.doublings-1)
		}
		if f.candidate == "" {
			return sawSame
		}
		f.candidate, f.sightings = "", 0
		f.wavers++
		return sawWaver
	case id != f.candidate:
		wavers := f.candidate != ""
		f.candidate, f.sightings = id, 1
		if wavers {
			f.wavers++
			return sawWaver
		}
		return sawAnother
	}
	if f.sightings++; f.sightings < f.needed() {
		return sawSame
	}
	f.change(id)
	return sawChange
}

// confirm takes in a key id that the plugin just used and that its status names too,
// which is as good as two polls. It reports whether the key id is believed.
func (f *follower) confirm(id string) bool {
	if id != f.believed && f.doublings == 0 {
		f.change(id)
	}
	return id == f.believed
}

// needed returns how many polls must name a candidate.
func (f *follower) needed() int { return fewestSightings << f.doublings }

func (f *follower) change(id string) {
	f.believed, f.candidate, f.sightings, f.held = id, "", 0, 0
	if fewestSightings<<f.doublings < mostSightings {
		f.doublings++
	}
}
