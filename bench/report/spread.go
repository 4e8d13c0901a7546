package report

import (
	"math"
	"slices"
)

// Spread is the middle and the extremes of a number of measurements.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// SpreadOf summarises the samples; all zero when there are none. The median of an even number is the mean of the two in the middle.
func SpreadOf(samples []float64) Spread {
	if len(samples) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(samples))
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return Spread{Median: median, Min: s[0], Max: s[len(s)-1]}
}

// aroundMedian returns two of the samples between which the median of all that could be taken lies in at least nine of ten cases (the sign test's
// interval), or the extremes when there are too few for that.
func aroundMedian(samples []float64) (low, high float64) {
	n := len(samples)
	if n == 0 {
		return 0, 0
	}
	s := slices.Sorted(slices.Values(samples))
	// Each is above the median as often as below, so that the number below it is binomial: outside is the chance of at most k of n.
	k, term, outside := 0, math.Pow(0.5, float64(n)), 0.0
	for {
		outside += term
		if outside > 0.05 {
			break
		}
		k++
		term *= float64(n-k+1) / float64(k)
	}
	k = max(k-1, 0)
	return s[k], s[n-1-k]
}

// Ratios divides sample by sample: both were taken in the same round, so that a machine that got slower in between does not count.
func Ratios(of, over []float64) []float64 {
	out := make([]float64, min(len(of), len(over)))
	for i := range out {
		out[i] = of[i] / over[i]
	}
	return out
}
