package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/etcdseal/etcdseal/bench/report"
)

// The range of a histogram: three digits of everything between them.
const (
	shortest = time.Microsecond
	longest  = 2 * time.Minute
)

// Histogram counts durations. It is safe for concurrent use.
type Histogram struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

// NewHistogram is an empty one.
func NewHistogram() *Histogram {
	return &Histogram{h: hdrhistogram.New(shortest.Nanoseconds(), longest.Nanoseconds(), 3)}
}

// Record counts one duration; one out of range counts as the nearest in it.
func (h *Histogram) Record(d time.Duration) {
	d = min(max(d, 0), longest)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.h.RecordValue(d.Nanoseconds()); err != nil {
		panic(err) // the range was just enforced
	}
}

// Add counts everything that the other one has.
func (h *Histogram) Add(other *Histogram) {
	other.mu.Lock()
	defer other.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if dropped := h.h.Merge(other.h); dropped != 0 {
		panic("load: merging histograms of different ranges")
	}
}

// Percentile is the time that so many per cent of the durations did not exceed; 0 when there are none.
func (h *Histogram) Percentile(p float64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Duration(h.h.ValueAtPercentile(p))
}

// Count is the number of durations.
func (h *Histogram) Count() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.h.TotalCount()
}

// Micros is a percentile in microseconds.
func (h *Histogram) Micros(p float64) float64 {
	return float64(h.Percentile(p).Nanoseconds()) / 1000
}

// Latency is the report's form of the distribution.
func (h *Histogram) Latency(workload, target string, rate float64) report.Latency {
	l := report.Latency{Workload: workload, Target: target, Rate: rate, Calls: h.Count(), P50: h.Micros(50), P99: h.Micros(99), P999: h.Micros(99.9), Max: h.Micros(100)}
	for _, p := range report.CurvePercentiles {
		l.Curve = append(l.Curve, report.Point{Percentile: p, Micros: h.Micros(p)})
	}
	return l
}
