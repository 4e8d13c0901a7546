// Package report holds what a benchmark found out, at whatever level it measured: rows of metrics by workload and target, distributions of latencies,
// figures that have a limit, and the machine that it was measured on. It prints them as a table, as JSON and as Markdown.
//
// A report is built and written by one goroutine.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Report is everything that a run found out. Its JSON form is the output of -o json.
type Report struct {
	Machine   Machine   `json:"machine"`
	Setup     []Setting `json:"setup,omitempty"`
	Rows      []Row     `json:"rows,omitempty"`
	Latencies []Latency `json:"latencies,omitempty"`
	Figures   []Figure  `json:"figures,omitempty"`
}

// Setting is one thing about the run that a reader must know to repeat it, such as the number of rounds.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Row is what was measured of one workload over one target. There is one row for each pair.
type Row struct {
	Workload string   `json:"workload"`
	Target   string   `json:"target"`
	Metrics  []Metric `json:"metrics"`
}

// Metric is one quantity of a row. Min and Max are over the rounds; both are the median where there was one measurement.
type Metric struct {
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"` // as Number knows them; empty for a ratio or a count
	Spread
}

// Sampled is a metric that was measured once a round.
func Sampled(name, unit string, samples []float64) Metric {
	return Metric{Name: name, Unit: unit, Spread: SpreadOf(samples)}
}

// Single is a metric that was measured once.
func Single(name, unit string, value float64) Metric {
	return Metric{Name: name, Unit: unit, Spread: Spread{Median: value, Min: value, Max: value}}
}

// Direction says on which side of its limit a figure has to be.
type Direction string

const (
	AtMost  Direction = "at most"
	AtLeast Direction = "at least"
	// Exactly is for a number that has to be what it is said to be, no less and no more.
	Exactly Direction = "exactly"
)

// Figure is a number that has a limit. Of one that was measured several times the value is the median, and the true one is probably between Low and
// High; otherwise both are 0.
type Figure struct {
	Name      string    `json:"name"`
	Value     float64   `json:"value"`
	Low       float64   `json:"low,omitempty"`
	High      float64   `json:"high,omitempty"`
	Unit      string    `json:"unit,omitempty"`
	Direction Direction `json:"direction"`
	Limit     float64   `json:"limit"`
	Met       bool      `json:"met"`
}

// Set adds something that a reader must know.
func (r *Report) Set(name, value string) {
	r.Setup = append(r.Setup, Setting{Name: name, Value: value})
}

// Add puts metrics into the row of the workload and the target, which is made if there is none.
func (r *Report) Add(workload, target string, metrics ...Metric) {
	i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.Workload == workload && row.Target == target })
	if i < 0 {
		i = len(r.Rows)
		r.Rows = append(r.Rows, Row{Workload: workload, Target: target})
	}
	r.Rows[i].Metrics = append(r.Rows[i].Metrics, metrics...)
}

// AddLatency adds a distribution.
func (r *Report) AddLatency(l Latency) { r.Latencies = append(r.Latencies, l) }

// AddFigure compares a value with its limit; one that is exactly at it is met, one that is not a number is not.
func (r *Report) AddFigure(name string, value float64, unit string, direction Direction, limit float64) {
	met := value <= limit
	switch direction {
	case AtLeast:
		met = value >= limit
	case Exactly:
		met = value == limit
	}
	r.Figures = append(r.Figures, Figure{Name: name, Value: value, Unit: unit, Direction: direction, Limit: limit, Met: met})
}

// AddSampled is AddFigure for what was measured several times.
func (r *Report) AddSampled(name string, samples []float64, unit string, direction Direction, limit float64) {
	r.AddFigure(name, SpreadOf(samples).Median, unit, direction, limit)
	if low, high := aroundMedian(samples); low < high {
		f := &r.Figures[len(r.Figures)-1]
		f.Low, f.High = low, high
	}
}

// Verdict says whether the figure is within its limit, and whether that may be chance.
func (f Figure) Verdict() string {
	verdict := "MISSED"
	if f.Met {
		verdict = "met"
	}
	if f.Low < f.Limit && f.Limit < f.High {
		verdict += ", not settled"
	}
	return verdict
}

// Metric looks a metric up; false when it was not measured.
func (r *Report) Metric(workload, target, name string) (Metric, bool) {
	for _, row := range r.Rows {
		if row.Workload != workload || row.Target != target {
			continue
		}
		for _, m := range row.Metrics {
			if m.Name == name {
				return m, true
			}
		}
	}
	return Metric{}, false
}

// Merge takes over what another run on the same machine found out. The machine stays the receiver's, with the versions of both and the work of others
// that was worse.
func (r *Report) Merge(other *Report) {
	for _, v := range other.Machine.Versions {
		if !slices.Contains(r.Machine.Versions, v) {
			r.Machine.Versions = append(r.Machine.Versions, v)
		}
	}
	r.Machine.Load, r.Machine.Others = max(r.Machine.Load, other.Machine.Load), max(r.Machine.Others, other.Machine.Others)
	for _, s := range other.Setup {
		if !slices.Contains(r.Setup, s) {
			r.Setup = append(r.Setup, s)
		}
	}
	for _, row := range other.Rows {
		r.Add(row.Workload, row.Target, row.Metrics...)
	}
	r.Latencies = append(r.Latencies, other.Latencies...)
	for _, f := range other.Figures {
		if !slices.Contains(r.Figures, f) { // some are of every run
			r.Figures = append(r.Figures, f)
		}
	}
}

// Empty says whether nothing has been found out yet.
func (r *Report) Empty() bool { return len(r.Rows)+len(r.Latencies)+len(r.Figures) == 0 }

// Met says whether every figure is within its limit.
func (r *Report) Met() bool {
	return !slices.ContainsFunc(r.Figures, func(f Figure) bool { return !f.Met })
}

// WriteJSON writes the report so that Read reads it.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("writing report: %w", err)
	}
	return nil
}

// Read reads what WriteJSON wrote.
func Read(in io.Reader) (*Report, error) {
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	var r Report
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("reading report: %w", err)
	}
	return &r, nil
}
