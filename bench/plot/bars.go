package plot

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// Bars compare series in groups.
type Bars struct {
	Title, Y string
	Groups   []string
	Series   []Series
	// Line is drawn across at this height when it is not zero.
	Line float64
}

// Series are bars of one colour, one for each group; NaN leaves one out.
type Series struct {
	Name   string
	Values []float64
	Colour int // index of the palette
}

// SVG draws them.
func (b Bars) SVG() ([]byte, error) {
	if len(b.Groups) == 0 || len(b.Series) == 0 {
		return nil, fmt.Errorf("drawing %q: nothing to draw", b.Title)
	}
	p := newPlot(b.Title, b.Y)
	lines(p, false)
	const shareOfGroup = 0.84 // the rest is space between groups
	// The axis takes about a tenth of the width.
	bar := width * 0.9 * shareOfGroup / vg.Length(len(b.Groups)*len(b.Series))
	top := b.highest() * 1.5 // room for the legend
	for i, s := range b.Series {
		if len(s.Values) != len(b.Groups) {
			return nil, fmt.Errorf("drawing %q: %d values of %s for %d groups", b.Title, len(s.Values), s.Name, len(b.Groups))
		}
		offset := bar * (vg.Length(i) - vg.Length(len(b.Series)-1)/2)
		chart, labels, err := series(s, bar, offset, func(v float64) float64 { return b.above(v, top) })
		if err != nil {
			return nil, fmt.Errorf("drawing %q: %w", b.Title, err)
		}
		p.Add(chart, labels)
		p.Legend.Add(s.Name, chart)
	}
	if b.Line != 0 {
		line := plotter.NewFunction(func(float64) float64 { return b.Line })
		line.Color, line.Dashes = rgb(ink.light), []vg.Length{vg.Points(4), vg.Points(3)}
		p.Add(line)
	}
	names := make([]string, len(b.Groups))
	for i, g := range b.Groups {
		names[i] = strings.Replace(g, " ", "\n", 1) // a long name on two lines
	}
	p.NominalX(names...)
	p.X.Tick.Label.Font.Size = vg.Points(9)
	p.Y.Min, p.Y.Max = 0, top
	p.X.Min, p.X.Max = -0.5, float64(len(b.Groups))-0.5
	return svg(p)
}

// highest is that of all bars and the line.
func (b Bars) highest() float64 {
	highest := b.Line
	for _, s := range b.Series {
		for _, v := range s.Values {
			if !math.IsNaN(v) {
				highest = max(highest, v)
			}
		}
	}
	return highest
}

// above is where the number over a bar stands: on the bar, or on the line where that would go through the number.
func (b Bars) above(v, top float64) float64 {
	const height = 0.06 // of a number, as a share of the axis
	if v < b.Line && v+height*top > b.Line {
		return b.Line
	}
	return v
}

// series are the bars of one colour, with their values above them.
func series(s Series, bar, offset vg.Length, above func(float64) float64) (*plotter.BarChart, *plotter.Labels, error) {
	values := make(plotter.Values, len(s.Values))
	points := plotter.XYLabels{}
	for i, v := range s.Values {
		if math.IsInf(v, 0) {
			return nil, nil, errors.New("a value is infinite")
		}
		if math.IsNaN(v) {
			continue // a bar without height
		}
		values[i] = v
		points.XYs = append(points.XYs, plotter.XY{X: float64(i), Y: above(v)})
		points.Labels = append(points.Labels, short(v))
	}
	chart, err := plotter.NewBarChart(values, bar)
	if err != nil {
		return nil, nil, err
	}
	chart.Color, chart.LineStyle.Width, chart.Offset = rgb(palette[s.Colour%len(palette)]), 0, offset
	labels, err := plotter.NewLabels(points)
	if err != nil {
		return nil, nil, err
	}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Color = rgb(ink.light)
		labels.TextStyle[i].Font.Size, labels.TextStyle[i].Font.Variant = min(vg.Points(8), bar*0.42), "Sans"
		labels.TextStyle[i].XAlign, labels.TextStyle[i].YAlign = text.XCenter, text.YBottom
	}
	labels.Offset = vg.Point{X: offset, Y: vg.Points(2)}
	return chart, labels, nil
}

// short is a number with two significant digits or so.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
