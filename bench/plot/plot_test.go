package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/bench/report"
)

// wellFormed parses all of it and returns the texts that a reader sees.
func wellFormed(t *testing.T, svg []byte) []string {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	var texts []string
	inText := false
	for root := true; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatalf("parsing SVG: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if root && (token.Name.Local != "svg" || token.Name.Space != "http://www.w3.org/2000/svg") {
				t.Fatalf("the root is %v, want svg", token.Name)
			}
			root, inText = false, token.Name.Local == "text"
		case xml.EndElement:
			inText = false
		case xml.CharData:
			if inText {
				texts = append(texts, string(token))
			}
		}
	}
}

func example() *report.Report {
	r := &report.Report{}
	for _, w := range []string{"get", "put <1 KiB>"} {
		r.Add(w, "direct", report.Single("calls/s", "", 1))
		r.Add(w, "tcpcopy", report.Single("over direct", "", 0.9))
	}
	r.Add("get", "etcdseal", report.Single("over direct", "", 0.789))
	for i, target := range []string{"direct", "tcpcopy"} {
		l := report.Latency{Workload: "get", Target: target, Rate: 1234}
		for j, p := range report.CurvePercentiles {
			l.Curve = append(l.Curve, report.Point{Percentile: p, Micros: float64(i+1) * float64(100+j*j)})
		}
		r.AddLatency(l)
	}
	return r
}

func TestOf(t *testing.T) {
	comparisons := []Comparison{
		{Name: "throughput", Title: "Throughput", Metric: "over direct", Targets: []string{"tcpcopy", "etcdseal", "absent"}, Line: 0.75},
		{Name: "none", Title: "Nothing of it was measured", Metric: "none", Targets: []string{"tcpcopy"}},
	}
	plots, err := Of(example(), comparisons, []string{"direct", "tcpcopy"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range plots {
		names = append(names, p.Name)
		texts := strings.Join(wellFormed(t, p.SVG), "|")
		want := map[string][]string{
			"throughput":  {"Throughput", "get", "put", "<1 KiB>", "tcpcopy", "etcdseal", "0.79", "0.90"},
			"latency-get": {"get: latency at 1234 calls a second", "direct", "tcpcopy", "99.9", "0.1"},
		}[p.Name]
		for _, w := range want {
			if !strings.Contains(texts, w) {
				t.Errorf("%s does not show %q but %s", p.Name, w, texts)
			}
		}
		if strings.Contains(texts, "absent") {
			t.Errorf("%s shows a target that was not measured: %s", p.Name, texts)
		}
		for _, s := range []shade{background, ink, grid} {
			if !strings.Contains(string(p.SVG), s.dark) || strings.Count(string(p.SVG), ":"+s.light) < 3 {
				t.Errorf("%s does not use %v in both schemes", p.Name, s)
			}
		}
	}
	if diff := cmp.Diff([]string{"throughput", "latency-get"}, names); diff != "" {
		t.Errorf("plots (-want +got):\n%s", diff)
	}
}

func TestBarsRefuseWhatCannotBeDrawn(t *testing.T) {
	for _, b := range []Bars{
		{Title: "empty"},
		{Title: "uneven", Groups: []string{"a", "b"}, Series: []Series{{Name: "s", Values: []float64{1}}}},
		{Title: "infinite", Groups: []string{"a"}, Series: []Series{{Name: "s", Values: []float64{math.Inf(1)}}}},
	} {
		if _, err := b.SVG(); err == nil || !strings.Contains(err.Error(), b.Title) {
			t.Errorf("%s: got %v, want an error that names it", b.Title, err)
		}
	}
	if _, err := (Curves{Title: "c", Lines: []Line{{Name: "l"}}}).SVG(); err == nil {
		t.Error("a line without points was drawn")
	}
	if _, err := (Curves{Title: "c"}).SVG(); err == nil {
		t.Error("no lines were drawn")
	}
}

func TestDecades(t *testing.T) {
	var got []string
	for _, tick := range (decades{}).Ticks(0.04, 3) {
		got = append(got, tick.Label)
	}
	if diff := cmp.Diff([]string{"0.05", "0.1", "0.2", "0.5", "1", "2"}, got); diff != "" {
		t.Errorf("ticks (-want +got):\n%s", diff)
	}
}

// A number over a bar that ends just below the line stands on the line.
func TestNumbersStayClearOfTheLine(t *testing.T) {
	b := Bars{Line: 1}
	for v, want := range map[float64]float64{0.5: 0.5, 0.98: 1, 1: 1, 1.2: 1.2} {
		if got := b.above(v, 1.5); got != want {
			t.Errorf("the number of %v stands at %v, want %v", v, got, want)
		}
	}
}
