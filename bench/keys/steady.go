package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

const (
	// SteadyLeast is the shortest time in which two checks of a key are seen.
	SteadyLeast = 2*time.Minute + 5*time.Second
	// steadyPause is how long the client rests between two rounds of writing and reading.
	steadyPause = 100 * time.Millisecond
)

// Steady counts the key operations of an etcdseal that is used and whose keys are left alone.
func Steady(ctx context.Context, r *rig.Rig, lasts time.Duration, rep *report.Report, stderr io.Writer) (err error) {
	v, err := startVault(ctx, r, "steady")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.server.Close()) }()
	s, err := v.start(ctx)
	if err != nil {
		return err
	}
	if err := v.put(ctx, s.Address, 0, keysBatch); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "counting key operations for %v\n", lasts)
	v.slow()
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		if err := v.put(ctx, s.Address, 0, keysBatch); err != nil {
			return err
		}
		if err := v.listOnce(ctx, s.Address, keysBatch); err != nil {
			return err
		}
		select {
		case <-time.After(steadyPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	rate, err := rateOf(v.operations())
	if err != nil {
		return err
	}
	rep.AddFigure("steady state: key operations per minute", math.Round(100*rate)/100, "", report.AtMost, 2)
	return s.Stop()
}

// rateOf is how many operations there are in a minute: those from the first wrapping to before the last one, over the time between these. So it
// does not matter where in an interval counting begins and ends.
func rateOf(operations []emulator.Call) (float64, error) {
	first, last := -1, -1
	for i, c := range operations {
		if c.Op != emulator.OpWrap {
			continue
		}
		if last = i; first < 0 {
			first = i
		}
	}
	if first == last {
		return 0, errors.New("fewer than two checks of the key were seen: -steady is too short, or keys are not checked")
	}
	return float64(last-first) / operations[last].Time.Sub(operations[first].Time).Minutes(), nil
}
