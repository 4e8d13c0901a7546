package report

import (
	"testing"
	"time"
)

func TestOthersCores(t *testing.T) {
	for _, c := range []struct {
		busy         float64
		own, elapsed time.Duration
		want         float64
	}{{1.5, 10 * time.Second, 10 * time.Second, 0.5}, {1.5, 16 * time.Second, 10 * time.Second, 0}, {2, 0, time.Second, 2}} {
		if got := othersCores(c.busy, c.own, c.elapsed); got != c.want {
			t.Errorf("%v processors busy and %v in %v of our own leave %v, want %v", c.busy, c.own, c.elapsed, got, c.want)
		}
	}
}
