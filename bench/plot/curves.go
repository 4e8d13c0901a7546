package plot

import (
	"fmt"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/etcdseal/etcdseal/bench/report"
)

// Curves show latencies by percentile, both axes stretched so that the slow calls can be seen.
type Curves struct {
	Title string
	Lines []Line
}

// Line is one distribution.
type Line struct {
	Name    string
	Latency report.Latency
	Colour  int // index of the palette
}

// nines places a percentile: 90 at 1, 99 at 2, 99.9 at 3.
func nines(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

// SVG draws them.
func (c Curves) SVG() ([]byte, error) {
	p := newPlot(c.Title, "milliseconds")
	lines(p, true)
	p.X.Label.Text = "percentile of the calls"
	lowest, highest := math.Inf(1), 0.0
	for _, l := range c.Lines {
		var points plotter.XYs
		for _, point := range l.Latency.Curve {
			if point.Micros <= 0 || point.Percentile < 10 {
				continue // has no place on the axes
			}
			points = append(points, plotter.XY{X: nines(point.Percentile), Y: point.Micros / 1000})
			lowest, highest = min(lowest, point.Micros/1000), max(highest, point.Micros/1000)
		}
		if len(points) == 0 {
			return nil, fmt.Errorf("drawing %q: %s has no distribution", c.Title, l.Name)
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, fmt.Errorf("drawing %q: %w", c.Title, err)
		}
		line.Color, line.Width = rgb(palette[l.Colour%len(palette)]), vg.Points(2)
		p.Add(line)
		p.Legend.Add(l.Name, line)
	}
	if len(c.Lines) == 0 {
		return nil, fmt.Errorf("drawing %q: nothing to draw", c.Title)
	}
	p.X.Min, p.X.Max = nines(10), nines(99.99)+0.12
	p.X.Tick.Marker = plot.ConstantTicks{{Value: nines(10), Label: "10"}, {Value: nines(50), Label: "50"}, {Value: 1, Label: "90"}, {Value: 2, Label: "99"},
		{Value: 3, Label: "99.9"}, {Value: 4, Label: "99.99"}}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	p.Y.Min, p.Y.Max = lowest*0.9, highest*1.1
	// Curves rise to the right: below them there is room.
	p.Legend.Top, p.Legend.XOffs = false, width*0.7
	return svg(p)
}

// decades marks 1, 2 and 5 of every power of ten.
type decades struct{}

// Ticks are those between both ends.
func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for power := math.Floor(math.Log10(low)); power <= math.Ceil(math.Log10(high)); power++ {
		for _, step := range []float64{1, 2, 5} {
			value := step * math.Pow(10, power)
			if value >= low && value <= high {
				ticks = append(ticks, plot.Tick{Value: value, Label: fmt.Sprintf("%.4g", value)})
			}
		}
	}
	return ticks
}
