package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// report is everything that a run found out. Its JSON form is the output of -o json.
type report struct {
	Cores   int      `json:"cores"`
	Go      string   `json:"go"`
	Etcd    string   `json:"etcd"`
	Rounds  int      `json:"rounds"`
	Turn    string   `json:"turn"`
	Load    float64  `json:"load"` // the machine's load average over the last minute, before the run; other work spoils the figures
	Calls   []calls  `json:"calls,omitempty"`
	Memory  []memory `json:"memory,omitempty"`
	Figures []figure `json:"figures,omitempty"`
}

// calls is one part over one target.
type calls struct {
	Part           string  `json:"part"`
	Target         string  `json:"target"`
	CallsPerSecond spread  `json:"callsPerSecond"`
	OverDirect     *spread `json:"callsPerSecondOverDirect,omitempty"` // nil when direct was not measured
	CPUPerCall     *spread `json:"cpuMicrosPerCall,omitempty"`         // nil for direct
	OverTCPCopy    *spread `json:"cpuOverTCPCopy,omitempty"`           // nil when the TCP copy was not measured
}

// memory is one kind of idle thing.
type memory struct {
	What     string    `json:"what"`
	Count    int       `json:"count"`
	Before   footprint `json:"before"`
	After    footprint `json:"after"`
	PSSEach  int64     `json:"pssEach"`  // bytes
	LiveEach int64     `json:"liveEach"` // bytes of heap and stacks
}

// figure is a number that has a limit (Met says whether it is within).
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Limit float64 `json:"limit"`
	Unit  string  `json:"unit"`
	Exact bool    `json:"exact,omitempty"` // the limit is the one value that is right
	Met   bool    `json:"met"`
}

// busy is the load average above which the machine was not idle enough before a run.
const busy = 1.0

// cpuLimit is the limit of etcdseal's processor time over that of the TCP copy.
func cpuLimit(part string) float64 {
	if part == partList {
		return 1.8
	}
	return 2.2
}

func (r *report) met() bool {
	return !slices.ContainsFunc(r.Figures, func(f figure) bool { return !f.Met })
}

// addExact is for a number that has to be what it is said to be, no less and no more.
func (r *report) addExact(name string, value, want float64) {
	r.Figures = append(r.Figures, figure{Name: name, Value: value, Limit: want, Exact: true, Met: value == want})
}

func (r *report) addFigure(name string, value, limit float64, unit string) {
	r.Figures = append(r.Figures, figure{Name: name, Value: value, Limit: limit, Unit: unit, Met: value <= limit})
}

// addCalls takes the samples of one part, in the order of the targets.
func (r *report) addCalls(part string, targets []*target, samples []sample) {
	find := func(name string) (sample, bool) {
		i := slices.IndexFunc(targets, func(t *target) bool { return t.name == name })
		if i < 0 {
			return sample{}, false
		}
		return samples[i], true
	}
	over := func(of, over []float64) *spread {
		s := spreadOf(ratios(of, over))
		return &s
	}
	direct, hasDirect := find(targetDirect)
	floor, hasFloor := find(targetTCPCopy)
	for i, t := range targets {
		c := calls{Part: part, Target: t.name, CallsPerSecond: spreadOf(samples[i].callsPerSecond)}
		if hasDirect {
			c.OverDirect = over(samples[i].callsPerSecond, direct.callsPerSecond)
		}
		if t.process != nil {
			cpu := spreadOf(samples[i].cpuPerCall)
			c.CPUPerCall = &cpu
			if hasFloor {
				c.OverTCPCopy = over(samples[i].cpuPerCall, floor.cpuPerCall)
			}
		}
		r.Calls = append(r.Calls, c)
		if t.name == targetSeal && c.OverTCPCopy != nil {
			r.addFigure("processor time over TCP copy, "+part, c.OverTCPCopy.Median, cpuLimit(part), "")
		}
	}
}

// addOverhead takes the bytes that etcd holds beyond a value's own. All sealed targets must agree; the first one is the figure.
func (r *report) addOverhead(n int) {
	const name = "overhead per value"
	for i, f := range r.Figures {
		if f.Name == name {
			r.Figures[i].Value = max(f.Value, float64(n))
			r.Figures[i].Met = r.Figures[i].Value <= f.Limit
			return
		}
	}
	r.addFigure(name, float64(n), 48, "bytes")
}

func (r *report) addMemory(what string, count int, before, after footprint, limit int64) {
	m := memory{What: what, Count: count, Before: before, After: after}
	m.PSSEach = (after.PSS - before.PSS) / int64(count)
	m.LiveEach = (after.Heap + after.Stacks - before.Heap - before.Stacks) / int64(count)
	r.Memory = append(r.Memory, m)
	r.addFigure(what, float64(m.PSSEach), float64(limit), "bytes")
}

func (r *report) addStart(ms spread) { r.addFigure("start to ready", ms.Median, 1000, "ms") }

// write prints the report as a table or as JSON.
func (r *report) write(w io.Writer, output string) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%d cores, %s, etcd %s without fsync; %d calls in flight on %d connections, values of %d bytes, lists of %d; %d rounds of %s; load before: %.1f\n",
		r.Cores, r.Go, r.Etcd, inFlight, connections, valueSize, keyCount, r.Rounds, r.Turn, r.Load)
	if r.Load > busy {
		fmt.Fprintf(t, "other work was going on: the figures are not to be relied on\n")
	}
	if len(r.Calls) > 0 {
		fmt.Fprintf(t, "\nCALL\tTHROUGH\tCALLS/S\tOVER DIRECT\tCPU/CALL\tOVER TCP COPY\t(MIN..MAX)\n")
	}
	for _, c := range r.Calls {
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%s\t%s\t%s\t%s\n", c.Part, c.Target, c.CallsPerSecond.Median,
			median("%.2f", c.OverDirect), median("%.1f us", c.CPUPerCall), median("%.2f", c.OverTCPCopy), extremes(c.OverTCPCopy))
	}
	if len(r.Memory) > 0 {
		fmt.Fprintf(t, "\nIDLE\tCOUNT\tPSS EACH\tHEAP+STACKS EACH\tPSS BEFORE\tPSS AFTER\n")
	}
	for _, m := range r.Memory {
		fmt.Fprintf(t, "%s\t%d\t%d B\t%d B\t%.1f MiB\t%.1f MiB\n", m.What, m.Count, m.PSSEach, m.LiveEach, mib(m.Before.PSS), mib(m.After.PSS))
	}
	if len(r.Figures) > 0 {
		fmt.Fprintf(t, "\nFIGURE\tMEASURED\tLIMIT\t\n")
	}
	for _, f := range r.Figures {
		verdict := "met"
		if !f.Met {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%.4g %s\t%.4g %s\t%s\n", f.Name, f.Value, f.Unit, f.Limit, f.Unit, verdict)
	}
	return t.Flush()
}

func median(format string, s *spread) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf(format, s.Median)
}

func extremes(s *spread) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("(%.2f..%.2f)", s.Min, s.Max)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
