package main

import "slices"

// spread is the middle and the extremes of a number of measurements.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf summarises the samples; all zero when there are none. The median of an even number is the mean of the two in the middle.
func spreadOf(samples []float64) spread {
	if len(samples) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(samples))
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return spread{Median: median, Min: s[0], Max: s[len(s)-1]}
}

// ratios divides sample by sample: both were taken in the same round.
func ratios(of, over []float64) []float64 {
	out := make([]float64, min(len(of), len(over)))
	for i := range out {
		out[i] = of[i] / over[i]
	}
	return out
}
