package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestFigure(t *testing.T) {
	for _, tt := range []struct {
		f    figure
		want string
		met  bool
	}{
		{figure{what: "a", value: 2, unit: "ms"}, "2.00 ms", true},
		{figure{what: "a", value: 2, limit: 2}, "(at most 2: met)", true},
		{figure{what: "a", value: 2.01, limit: 2}, "(at most 2: NOT MET)", false},
		{figure{what: "a", value: 0.59, limit: 0.6, least: true}, "(at least 0.6: NOT MET)", false},
		{figure{what: "a", value: 0.61, limit: 0.6, least: true}, "(at least 0.6: met)", true},
	} {
		if got := tt.f.String(); !strings.HasSuffix(got, tt.want) || tt.f.met() != tt.met {
			t.Errorf("%+v: %q, met %t, want %q, %t", tt.f, got, tt.f.met(), tt.want, tt.met)
		}
	}
}

func TestMedianAndP99(t *testing.T) {
	for _, tt := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 5}, 5}} {
		if got := median(tt.of); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.of, got, tt.want)
		}
	}
	var took []time.Duration
	for i := range 200 {
		took = append(took, time.Duration(200-i)*time.Millisecond)
	}
	if got := p99(took); got != 199 {
		t.Errorf("p99 is %v, want 199", got)
	}
}

func TestArguments(t *testing.T) {
	for args, want := range map[string]int{"-only nothing": 2, "-values 1": 2, "-h": 0, "more": 2, "-rounds x": 2} {
		var out bytes.Buffer
		if got := run(t.Context(), strings.Fields(args), &out, &out); got != want || out.Len() == 0 {
			t.Errorf("%q: exit status %d, want %d: %s", args, got, want, out.String())
		}
	}
}
