package report

import "slices"

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

// Ratios divides sample by sample: both were taken in the same round, so that a machine that got slower in between does not count.
func Ratios(of, over []float64) []float64 {
	out := make([]float64, min(len(of), len(over)))
	for i := range out {
		out[i] = of[i] / over[i]
	}
	return out
}
