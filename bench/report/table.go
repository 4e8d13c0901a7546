package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the report for a terminal.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, r.Machine)
	for _, s := range r.Setup {
		fmt.Fprintf(t, "%s: %s\n", s.Name, s.Value)
	}
	if r.Machine.Disturbed() {
		fmt.Fprintln(t, "other work was going on: the figures are not to be relied on")
	}
	for _, table := range r.tables() {
		fmt.Fprintln(t)
		for i, line := range table {
			if i == 0 {
				line = upper(line)
			}
			fmt.Fprintln(t, strings.Join(line, "\t"))
		}
	}
	return t.Flush()
}

func upper(line []string) []string {
	out := make([]string, len(line))
	for i, cell := range line {
		out[i] = strings.ToUpper(cell)
	}
	return out
}

// WriteMarkdown writes the same tables for a document, without a heading.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Machine: %s.\n", r.Machine)
	if len(r.Setup) > 0 {
		b.WriteString("\n")
	}
	for _, s := range r.Setup {
		fmt.Fprintf(&b, "- %s: %s\n", s.Name, s.Value)
	}
	if r.Machine.Disturbed() {
		b.WriteString("\nOther work was going on: the figures are not to be relied on.\n")
	}
	for _, table := range r.tables() {
		b.WriteString("\n")
		for i, line := range table {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
			if i == 0 {
				b.WriteString("|" + strings.Repeat("---|", len(line)) + "\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tables are one for each workload, then the latencies and the figures. The first line of each is its heading.
func (r *Report) tables() [][][]string {
	var out [][][]string
	for _, workload := range r.workloads() {
		out = append(out, r.table(workload))
	}
	if len(r.Latencies) > 0 {
		table := [][]string{{"latency", "target", "calls/s", "p50", "p99", "p99.9", "max"}}
		for _, l := range r.Latencies {
			table = append(table, []string{l.Workload, l.Target, digits(l.Rate), Number(l.P50, "us"), Number(l.P99, "us"), Number(l.P999, "us"), Number(l.Max, "us")})
		}
		out = append(out, table)
	}
	if len(r.Figures) > 0 {
		table := [][]string{{"figure", "measured", "limit", "verdict"}}
		for _, f := range r.Figures {
			measured := Number(f.Value, f.Unit)
			if f.Low != f.High {
				factor, _ := scale(f.Value, f.Unit)
				measured += fmt.Sprintf(" (%s..%s)", digits(f.Low*factor), digits(f.High*factor))
			}
			table = append(table, []string{f.Name, measured, string(f.Direction) + " " + Number(f.Limit, f.Unit), f.Verdict()})
		}
		out = append(out, table)
	}
	return out
}

// workloads are those of the rows, in the order of their first appearance.
func (r *Report) workloads() []string {
	var names []string
	for _, row := range r.Rows {
		if !slices.Contains(names, row.Workload) {
			names = append(names, row.Workload)
		}
	}
	return names
}

// table has a line for each target and a column for each metric that any of them has.
func (r *Report) table(workload string) [][]string {
	var rows []Row
	for _, row := range r.Rows {
		if row.Workload == workload {
			rows = append(rows, row)
		}
	}
	heading := append([]string{workload}, columns(rows)...)
	table := [][]string{heading}
	for _, row := range rows {
		line := []string{row.Target}
		for _, name := range heading[1:] {
			i := slices.IndexFunc(row.Metrics, func(m Metric) bool { return m.Name == name })
			if i < 0 {
				line = append(line, "-")
				continue
			}
			line = append(line, row.Metrics[i].String())
		}
		table = append(table, line)
	}
	return table
}

// columns are the metrics of all rows. A metric that an earlier row does not have comes before the one that follows it in a later row.
func columns(rows []Row) []string {
	var names []string
	for _, row := range rows {
		at := 0
		for _, m := range row.Metrics {
			if i := slices.Index(names, m.Name); i >= 0 {
				at = i + 1
				continue
			}
			names = slices.Insert(names, at, m.Name)
			at++
		}
	}
	return names
}

// String is the median, and the extremes in the same unit where they differ from it.
func (m Metric) String() string {
	if m.Min == m.Max {
		return Number(m.Median, m.Unit)
	}
	factor, _ := scale(m.Median, m.Unit)
	return fmt.Sprintf("%s (%s..%s)", Number(m.Median, m.Unit), digits(m.Min*factor), digits(m.Max*factor))
}
