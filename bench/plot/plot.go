// Package plot draws a report as SVG files: bars that compare targets, and curves of latencies. They are readable on a light and on a dark page: each has
// a background of its own, and both change with the reader's preferred colour scheme.
package plot

import (
	"bytes"
	"fmt"
	"image/color"
	"regexp"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	width  = 8.6 * vg.Inch
	height = 4.2 * vg.Inch
	margin = 0.08 * vg.Inch // so that no letter of another font is cut off
)

// The colours of everything but the data, and what they become on a dark page. Pure black cannot be used: the SVG writer leaves it out as a default.
var (
	background = shade{"#FFFFFF", "#0D1117"}
	ink        = shade{"#1F2328", "#E6EDF3"}
	grid       = shade{"#D0D7DE", "#30363D"}
)

type shade struct{ light, dark string }

// palette are colours that people with impaired colour vision can tell apart (Okabe and Ito), on either background.
var palette = []string{"#8B949E", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#0072B2", "#B8A92D"}

func rgb(hex string) color.Color {
	var r, g, b uint8
	if _, err := fmt.Sscanf(hex, "#%02X%02X%02X", &r, &g, &b); err != nil {
		panic("plot: colour " + hex + " is not #RRGGBB")
	}
	return color.RGBA{R: r, G: g, B: b, A: 0xff}
}

// newPlot is an empty one in our colours.
func newPlot(title, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = title, y
	p.BackgroundColor = rgb(background.light)
	p.Title.Padding = vg.Points(6)
	dark := rgb(ink.light)
	for _, style := range []*draw.TextStyle{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Color, style.Font.Variant = dark, "Sans"
	}
	for _, line := range []*draw.LineStyle{&p.X.LineStyle, &p.Y.LineStyle, &p.X.Tick.LineStyle, &p.Y.Tick.LineStyle} {
		line.Color = dark
	}
	p.Title.TextStyle.Font.Size = vg.Points(13)
	// Legends are on the left, where what a reader's font takes more than ours goes to an empty place.
	p.Legend.Top, p.Legend.Left, p.Legend.Padding, p.Legend.TextStyle.Font.Size = true, true, vg.Points(2), vg.Points(10)
	return p
}

// lines draws a grid behind the data.
func lines(p *plot.Plot, vertical bool) {
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = rgb(grid.light), rgb(grid.light)
	if !vertical {
		g.Vertical.Width = 0
	}
	p.Add(g)
}

// families are what the writer says of fonts, which a reader's machine need not have.
var families = regexp.MustCompile(`font-family:[^;]*;`)

// svg renders a plot and makes its colours follow the reader's.
func svg(p *plot.Plot) ([]byte, error) {
	canvas := vgsvg.New(width, height)
	whole := draw.New(canvas)
	whole.SetColor(p.BackgroundColor)
	whole.Fill(whole.Rectangle.Path())
	p.Draw(draw.Crop(whole, margin, -margin, margin, -margin))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("drawing %q: %w", p.Title.Text, err)
	}
	text := families.ReplaceAllString(b.String(), "font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")
	// What the writer says of the style comes first in an attribute, so that it has to be overruled.
	var style strings.Builder
	style.WriteString("<style>@media (prefers-color-scheme: dark) {\n")
	for _, s := range []shade{background, ink, grid} {
		for _, property := range []string{"fill", "stroke"} {
			fmt.Fprintf(&style, "[style*=\"%[1]s:%[2]s\"] { %[1]s: %[3]s !important }\n", property, s.light, s.dark)
		}
	}
	style.WriteString("}</style>\n")
	head := strings.Index(text, "<g transform=")
	if head < 0 {
		return nil, fmt.Errorf("drawing %q: the SVG begins in an unknown way", p.Title.Text)
	}
	return []byte(text[:head] + style.String() + text[head:]), nil
}
