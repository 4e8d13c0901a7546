package keys

import (
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// Where counting begins and ends makes no difference, and too little to count is said.
func TestRateOf(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(op string, seconds int) emulator.Call {
		return emulator.Call{Op: op, Time: start.Add(time.Duration(seconds) * time.Second)}
	}
	wrap, unwrap := emulator.OpWrap, emulator.OpUnwrap
	for _, r := range []struct {
		name  string
		calls []emulator.Call
		want  float64 // 0 for an error
	}{
		{"three checks", []emulator.Call{at(wrap, 50), at(unwrap, 51), at(wrap, 110), at(unwrap, 111), at(wrap, 170)}, 2},
		{"cut off at the beginning", []emulator.Call{at(unwrap, 1), at(wrap, 60), at(unwrap, 61), at(wrap, 120), at(unwrap, 121)}, 2},
		{"too many", []emulator.Call{at(wrap, 0), at(unwrap, 1), at(unwrap, 20), at(unwrap, 40), at(wrap, 60)}, 4},
		{"one check", []emulator.Call{at(wrap, 0), at(unwrap, 1)}, 0},
		{"none", nil, 0},
	} {
		got, err := rateOf(r.calls)
		if got != r.want || (err == nil) != (r.want > 0) {
			t.Errorf("%s: %v, %v, want %v", r.name, got, err, r.want)
		}
	}
}
