package report

import (
	"math"
	"strconv"
)

// Number is a value for people, with its unit, to three digits or so. Bytes ("B"), "us" and "ms" are scaled; empty and unknown units are shown as they are.
func Number(value float64, unit string) string {
	factor, unit := scale(value, unit)
	if unit == "" {
		return digits(value)
	}
	return digits(value*factor) + " " + unit
}

// scale chooses a unit in which the value is short enough to read, and what to multiply by to get there.
func scale(value float64, unit string) (factor float64, into string) {
	steps := map[string]struct {
		step  float64
		units []string
	}{"B": {1024, []string{"B", "KiB", "MiB", "GiB"}}, "us": {1000, []string{"us", "ms", "s"}}, "ms": {1000, []string{"ms", "s"}}}
	s, ok := steps[unit]
	if !ok {
		return 1, unit
	}
	i, factor := 0, 1.0
	for ; i < len(s.units)-1 && math.Abs(value*factor) >= 10*s.step; i++ {
		factor /= s.step
	}
	return factor, s.units[i]
}

// digits shows whole numbers as such, large ones without a fraction and small ones with two digits of it.
func digits(value float64) string {
	abs := math.Abs(value)
	switch {
	case value == math.Trunc(value) && abs < 1e15, abs >= 100:
		return strconv.FormatFloat(value, 'f', 0, 64)
	case abs >= 10:
		return strconv.FormatFloat(value, 'f', 1, 64)
	}
	return strconv.FormatFloat(value, 'f', 2, 64)
}
