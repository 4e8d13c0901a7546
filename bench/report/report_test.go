package report

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{9, 1, 2}, Spread{2, 1, 9}},
		{[]float64{4, 1, 2, 9}, Spread{3, 1, 9}},
	} {
		if got := SpreadOf(c.in); got != c.want {
			t.Errorf("spread of %v is %v, want %v", c.in, got, c.want)
		}
	}
	if diff := cmp.Diff([]float64{2, 0.5}, Ratios([]float64{4, 1}, []float64{2, 2})); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
}

func TestFigures(t *testing.T) {
	for _, c := range []struct {
		value     float64
		direction Direction
		met       bool
	}{
		{1.8, AtMost, true}, {1.81, AtMost, false}, {1.8, AtLeast, true}, {1.79, AtLeast, false}, {1.8, Exactly, true}, {1.81, Exactly, false}, {1.79, Exactly, false}, {math.NaN(), AtMost, false}, {math.NaN(), AtLeast, false},
	} {
		var r Report
		r.AddFigure("f", c.value, "", c.direction, 1.8)
		if r.Met() != c.met {
			t.Errorf("%v is %s 1.8: %t, want %t", c.value, c.direction, r.Met(), c.met)
		}
	}
}

func TestSampledFigures(t *testing.T) {
	nine := []float64{1, 9, 2, 8, 3, 7, 4, 6, 5}
	for _, c := range []struct {
		samples   []float64
		limit     float64
		low, high float64
		verdict   string
	}{
		{nine, 9, 2, 8, "met"}, {nine, 7, 2, 8, "met, not settled"}, {nine, 4, 2, 8, "MISSED, not settled"}, {nine, 2, 2, 8, "MISSED"},
		{nine[:3], 1.5, 1, 9, "MISSED, not settled"}, {[]float64{3, 3}, 3, 0, 0, "met"}, {[]float64{4}, 3, 0, 0, "MISSED"},
	} {
		var r Report
		r.AddSampled("f", c.samples, "", AtMost, c.limit)
		if f := r.Figures[0]; f.Low != c.low || f.High != c.high || f.Verdict() != c.verdict {
			t.Errorf("%v at most %v: between %v and %v, %s, want %v, %v, %s", c.samples, c.limit, f.Low, f.High, f.Verdict(), c.low, c.high, c.verdict)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		value      float64
		unit, want string
	}{
		{0, "", "0"}, {48, "B", "48 B"}, {1.234, "", "1.23"}, {12.34, "us", "12.3 us"}, {123.4, "us", "123 us"}, {12_340, "us", "12.3 ms"}, {9_000, "us", "9000 us"},
		{12_340_000, "us", "12.3 s"}, {20 << 20, "B", "20 MiB"}, {53_212.4, "", "53212"}, {53_212.4, "1/s", "53212 1/s"}, {-0.5, "", "-0.50"},
	} {
		if got := Number(c.value, c.unit); got != c.want {
			t.Errorf("%v in %q is %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

func TestMetric(t *testing.T) {
	if got, want := Sampled("time", "us", []float64{9_000, 20_000, 30_500}).String(), "20 ms (9..30.5)"; got != want {
		t.Errorf("metric is %q, want %q", got, want)
	}
}

func example() *Report {
	r := &Report{Machine: Machine{Date: "2026-11-28", CPU: "a CPU", Cores: 2, Memory: 8 << 30, Kernel: "6.1", Platform: "linux/amd64", Versions: []Version{{"Go", "1.26"}}}}
	r.Set("rounds", "5")
	r.Add("get", "direct", Sampled("calls/s", "", []float64{30_000, 20_000, 40_000}))
	r.Add("get", "direct", Single("etcd CPU", "us", 7))
	r.Add("get", "etcdseal", Sampled("calls/s", "", []float64{15_000}))
	r.Add("get", "etcdseal", Single("CPU/call", "us", 20))
	r.AddLatency(Latency{Workload: "get", Target: "direct", Rate: 1000, Calls: 10, P50: 100, P99: 200, P999: 20_000, Max: 30_000, Curve: []Point{{50, 100}}})
	r.AddFigure("throughput over direct, get", 0.5, "", AtLeast, 0.75)
	return r
}

func TestTables(t *testing.T) {
	want := [][][]string{
		{{"get", "calls/s", "CPU/call", "etcd CPU"}, {"direct", "30000 (20000..40000)", "-", "7 us"}, {"etcdseal", "15000", "20 us", "-"}},
		{{"latency", "target", "calls/s", "p50", "p99", "p99.9", "max"}, {"get", "direct", "1000", "100 us", "200 us", "20 ms", "30 ms"}},
		{{"figure", "measured", "limit", "verdict"}, {"throughput over direct, get", "0.50", "at least 0.75", "MISSED"}},
	}
	r := example()
	if diff := cmp.Diff(want, r.tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	var table, markdown bytes.Buffer
	if err := r.WriteTable(&table); err != nil || !strings.Contains(table.String(), "MISSED") {
		t.Errorf("table does not say MISSED (%v):\n%s", err, table.String())
	}
	if strings.Contains(table.String(), "other work was") {
		t.Errorf("table speaks of other work on an idle machine:\n%s", table.String())
	}
	r.Machine.Load = 3
	if err := r.WriteMarkdown(&markdown); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"| etcdseal | 15000 | 20 us | - |\n", "| get | calls/s | CPU/call | etcd CPU |\n|---|---|---|---|\n", "- rounds: 5\n", "Other work"} {
		if !strings.Contains(markdown.String(), line) {
			t.Errorf("Markdown does not hold %q:\n%s", line, markdown.String())
		}
	}
}

func TestJSON(t *testing.T) {
	r := example()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Errorf("report after JSON (-want +got):\n%s", diff)
	}
	if _, err := Read(strings.NewReader(`{"unknown": 1}`)); err == nil {
		t.Error("an unknown field was accepted")
	}
}

func TestMerge(t *testing.T) {
	r, other := example(), &Report{Machine: Machine{Load: 2, Versions: []Version{{"Go", "1.26"}, {"Kubernetes", "1.37"}}}}
	other.Add("get", "direct", Single("bytes", "B", 7))
	other.AddFigure("another", 1, "", AtMost, 1)
	for _, s := range r.Setup { // of every run
		other.Set(s.Name, s.Value)
	}
	other.Figures, other.Machine.Others = append(other.Figures, r.Figures...), 0.7
	settings := len(r.Setup)
	r.Merge(other)
	if m, ok := r.Metric("get", "direct", "bytes"); !ok || m.Median != 7 {
		t.Errorf("the other report's metric is %v, %t", m, ok)
	}
	if len(r.Rows) != 2 || len(r.Figures) != 2 || len(r.Setup) != settings || len(r.Machine.Versions) != 2 || r.Machine.Load != 2 || r.Machine.Others != 0.7 {
		t.Errorf("merged report is %+v", r)
	}
}

func TestMachine(t *testing.T) {
	if got, err := parseCPU(strings.NewReader("processor\t: 0\nmodel name\t: Some CPU @ 3\n")); got != "Some CPU @ 3" || err != nil {
		t.Errorf("CPU is %q, %v", got, err)
	}
	if got, err := parseMemory(strings.NewReader("MemTotal:       2048 kB\nMemFree: 1 kB\n")); got != 2<<20 || err != nil {
		t.Errorf("memory is %d, %v", got, err)
	}
	if _, err := parseMemory(strings.NewReader("MemFree: 1 kB\n")); err == nil {
		t.Error("memory without MemTotal was accepted")
	}
	var before, after ticks
	if err := errors.Join(before.parse(strings.NewReader("cpu 100 0 100 700 100 0 0 0 50 0\ncpu0 1\n")), after.parse(strings.NewReader("cpu 140 10 130 800 110 5 5 0 60 0\n"))); err != nil {
		t.Error(err)
	}
	if got := after.busySince(before); math.Abs(got-0.45) > 1e-9 {
		t.Errorf("%v of the time was busy, want 0.45", got)
	}
	if got := before.busySince(before); got != 0 {
		t.Errorf("%v of no time was busy", got)
	}
	for _, bad := range []string{"", "intr 1 2 3 4 5 6 7 8\n", "cpu 1 2 x\n"} {
		if err := new(ticks).parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	m, err := ReadMachine(time.Date(2026, 11, 28, 23, 0, 0, 0, time.UTC), Version{"etcd", "3.7.3"})
	if err != nil {
		t.Fatal(err)
	}
	if m.Cores == 0 || m.Memory == 0 || m.Kernel == "" || m.Date != "2026-11-28" || len(m.Versions) != 2 {
		t.Errorf("this machine is %+v", m)
	}
}
