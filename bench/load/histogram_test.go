package load

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	h, other := NewHistogram(), NewHistogram()
	if h.Percentile(99) != 0 {
		t.Error("an empty histogram has a percentile")
	}
	for i := range 1000 {
		into := h
		if i%2 == 0 {
			into = other
		}
		into.Record(time.Duration(i+1) * time.Millisecond)
	}
	h.Add(other)
	for _, c := range []struct {
		percentile float64
		want       time.Duration
	}{{50, 500 * time.Millisecond}, {99, 990 * time.Millisecond}, {99.9, 999 * time.Millisecond}, {100, time.Second}} {
		if got := h.Percentile(c.percentile); got < c.want-c.want/500 || got > c.want+c.want/500 {
			t.Errorf("%v %% is %v, want %v to three digits", c.percentile, got, c.want)
		}
	}
	h.Record(-time.Second)
	h.Record(time.Hour)
	if h.Count() != 1002 || h.Percentile(100) < longest-time.Second {
		t.Errorf("%d durations up to %v after two out of range", h.Count(), h.Percentile(100))
	}
	l := h.Latency("get", "direct", 10)
	if l.Calls != 1002 || l.P50 != h.Micros(50) || len(l.Curve) == 0 {
		t.Errorf("latency is %+v", l)
	}
}
