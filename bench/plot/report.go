package plot

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/etcdseal/etcdseal/bench/report"
)

// Plot is a drawing of some of a report.
type Plot struct {
	Name  string // of the file, without .svg
	Title string
	SVG   []byte
}

// Comparison is one metric of all workloads that have it.
type Comparison struct {
	Name, Title, Y string
	Metric         string
	Targets        []string // in the order of their colours; those that were not measured are left out
	Line           float64
}

// Of draws the comparisons for which the report has something, and the latencies of each workload.
func Of(r *report.Report, comparisons []Comparison, targets []string) ([]Plot, error) {
	var plots []Plot
	for _, c := range comparisons {
		b := bars(r, c)
		if len(b.Series) == 0 {
			continue
		}
		svg, err := b.SVG()
		if err != nil {
			return nil, err
		}
		plots = append(plots, Plot{c.Name, c.Title, svg})
	}
	var workloads []string
	for _, l := range r.Latencies {
		if !slices.Contains(workloads, l.Workload) {
			workloads = append(workloads, l.Workload)
		}
	}
	for _, w := range workloads {
		c := curves(r, w, targets)
		if len(c.Lines) == 0 {
			continue
		}
		svg, err := c.SVG()
		if err != nil {
			return nil, err
		}
		plots = append(plots, Plot{"latency-" + strings.ReplaceAll(w, " ", "-"), c.Title, svg})
	}
	return plots, nil
}

// bars has a group for each workload in which any of the targets has the metric.
func bars(r *report.Report, c Comparison) Bars {
	b := Bars{Title: c.Title, Y: c.Y, Line: c.Line}
	for _, row := range r.Rows {
		if slices.Contains(b.Groups, row.Workload) || !slices.Contains(c.Targets, row.Target) {
			continue
		}
		if _, ok := r.Metric(row.Workload, row.Target, c.Metric); ok {
			b.Groups = append(b.Groups, row.Workload)
		}
	}
	for colour, target := range c.Targets {
		s, found := Series{Name: target, Colour: colour}, false
		for _, workload := range b.Groups {
			m, ok := r.Metric(workload, target, c.Metric)
			if !ok {
				m.Median = math.NaN()
			}
			s.Values, found = append(s.Values, m.Median), found || ok
		}
		if found {
			b.Series = append(b.Series, s)
		}
	}
	return b
}

// curves has a line for each of the targets.
func curves(r *report.Report, workload string, targets []string) Curves {
	var c Curves
	for colour, target := range targets {
		for _, l := range r.Latencies {
			if l.Workload == workload && l.Target == target {
				c.Lines = append(c.Lines, Line{target, l, colour})
				c.Title = fmt.Sprintf("%s: latency at %.0f calls a second", workload, l.Rate)
			}
		}
	}
	return c
}
