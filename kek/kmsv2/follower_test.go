package kmsv2

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// Each word is a key id that a poll names, and the one that is believed then.
func TestFollower(t *testing.T) {
	for _, tt := range []struct {
		name         string
		polls, wants string
	}{
		{"the first", "a", "a"},
		{"seen twice", "aabbb", "aaabb"},
		{"seen once", "aabaa", "aaaaa"},
		{"to and fro", "abababababab", "aaaaaaaaaaaa"},
		{"another each time", "abcdefghij", "aaaaaaaaaa"},
		{"a third one between", "abcbcbb", "aaaaaab"},
		{"back again soon takes longer", "abbaaaabbbbbbbbbc", "aabbbbaaaaaaaabbb"},
		{"each time longer", "aabbaaaabbbbbbbbaaaaaaaaaaaaaaaab", "aaabbbbaaaaaaaabbbbbbbbbbbbbbbbaa"},
	} {
		var f follower
		got := ""
		for _, id := range tt.polls {
			f.see(string(id))
			got += f.believed
		}
		if got != tt.wants {
			t.Errorf("%s: polls %s: believed\n%s, want\n%s", tt.name, tt.polls, got, tt.wants)
		}
	}
}

// A key id that was held for a while is left as easily as the first one.
func TestFollowerRests(t *testing.T) {
	var f follower
	for range 10 {
		for _, id := range []string{"a", "b"} {
			polls := 0
			for f.believed != id {
				f.see(id)
				polls++
			}
			if polls > 2 {
				t.Fatalf("a change took %d polls after a rest", polls)
			}
			for range rest {
				f.see(id)
			}
		}
	}
}

// Whatever the polls name, changes do not come more often than once in so many polls
// over time.
func TestFollowerBoundsChanges(t *testing.T) {
	const polls = 4000
	random := rand.New(rand.NewPCG(1, 2))
	for period := 1; period <= 80; period++ {
		for _, jitter := range []int{0, 1, 10} {
			var f follower
			changes, id, left := 0, 0, period
			for range polls {
				if left--; left < 0 {
					id, left = id+1, period+random.IntN(jitter+1)
				}
				name := strconv.Itoa(id % 2)
				if jitter == 10 {
					name = strconv.Itoa(id) // never the same again
				}
				before := f.believed
				f.see(name)
				if f.believed != before {
					changes++
				}
			}
			if limit := polls/rest + 10; changes > limit {
				t.Errorf("a change each %d polls, jitter %d: believed %d times, want at most %d", period, jitter, changes, limit)
			}
		}
	}
}

// What the plugin uses and names is believed at once, but not soon after a change.
func TestFollowerConfirms(t *testing.T) {
	var f follower
	f.see("a")
	if !f.confirm("a") || !f.confirm("b") || f.believed != "b" {
		t.Errorf("the first change is not believed: %+v", f)
	}
	if f.confirm("a") || f.believed != "b" {
		t.Errorf("a second change is believed at once: %+v", f)
	}
	for range rest {
		f.see("b")
	}
	if !f.confirm("a") {
		t.Errorf("a change after a rest is not believed: %+v", f)
	}
}
