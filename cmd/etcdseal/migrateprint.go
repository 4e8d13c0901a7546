package main

import (
	"fmt"
	"io"
	"time"

	"github.com/etcdseal/etcdseal/migrate"
)

// printPlan says what a dry run found.
func printPlan(to io.Writer, r *migrate.Result) {
	fmt.Fprintf(to, "%s: %d of %d keys under the rules, %d already done, %d empty, %d not concerned, %d problems\n",
		r.Kind, r.Left, r.Keys, r.Done, r.Empty, r.Others, int64(len(r.Problems))+r.Omitted)
	e := r.Estimate
	if e == nil {
		return
	}
	fmt.Fprintf(to, "  %d bytes of new revisions", e.Bytes)
	if e.Duration > 0 {
		fmt.Fprintf(to, ", about %s at the given rate", e.Duration.Round(time.Second))
	}
	fmt.Fprintln(to)
	if s := e.Space; s != nil {
		fmt.Fprintf(to, "  etcd's database: %d bytes, %d in use, would grow by about %d; quota %d\n", s.Size, s.InUse, e.Growth, s.Quota)
	}
	if !e.Fits() {
		fmt.Fprintln(to, "  This would stop near the quota: compact and defragment etcd first, or in between; it goes on where it stopped.")
	}
}

// printText says what was done. If nothing was even looked at, the error says it all.
func printText(to io.Writer, r *migrate.Result) {
	if r.Passes == 0 {
		return
	}
	fmt.Fprintf(to, "%s: %d values written (%d bytes before) in %s, %d passes\n", r.Kind, r.Changed, r.ChangedBytes, r.Elapsed.Round(time.Millisecond), r.Passes)
	fmt.Fprintf(to, "  the last pass, at revision %d: %d keys under the rules, %d as wanted, %d empty, %d not concerned, %d left, %d problems\n",
		r.Revision, r.Keys, r.Done, r.Empty, r.Others, r.Left, int64(len(r.Problems))+r.Omitted)
}

// migrateJSON is what -o json prints.
type migrateJSON struct {
	Verb         string        `json:"verb"`
	DryRun       bool          `json:"dryRun"`
	Passes       int           `json:"passes"`
	Revision     int64         `json:"revision"`
	Keys         int64         `json:"keys"`
	Done         int64         `json:"done"`
	Empty        int64         `json:"empty"`
	Others       int64         `json:"notConcerned"`
	Changed      int64         `json:"changed"`
	ChangedBytes int64         `json:"changedBytes"`
	Left         int64         `json:"left"`
	Retried      int64         `json:"retried"`
	Seconds      float64       `json:"seconds"`
	Problems     []problemJSON `json:"problems"`
	Omitted      int64         `json:"problemsOmitted"`
	Estimate     *estimateJSON `json:"estimate,omitempty"`
	Purge        *purgeJSON    `json:"purge,omitempty"`
	Error        string        `json:"error,omitempty"`
}

type problemJSON struct {
	keyJSON
	Error string `json:"error"`
}

type estimateJSON struct {
	Values       int64   `json:"values"`
	Bytes        int64   `json:"bytes"`
	Growth       int64   `json:"growthBytes"`
	Seconds      float64 `json:"seconds"`
	DatabaseSize int64   `json:"databaseBytes,omitempty"`
	Quota        int64   `json:"quotaBytes,omitempty"`
	Fits         bool    `json:"fits"`
}

func resultJSON(o outcome) migrateJSON {
	r := o.result
	j := migrateJSON{
		Verb: r.Kind.String(), DryRun: r.DryRun, Passes: r.Passes, Revision: r.Revision, Keys: r.Keys, Done: r.Done, Empty: r.Empty, Others: r.Others,
		Changed: r.Changed, ChangedBytes: r.ChangedBytes, Left: r.Left, Retried: r.Retried, Seconds: r.Elapsed.Seconds(), Problems: []problemJSON{}, Omitted: r.Omitted,
	}
	for _, p := range r.Problems {
		j.Problems = append(j.Problems, problemJSON{newKeyJSON(p.Key), p.Err.Error()})
	}
	if e := r.Estimate; e != nil {
		j.Estimate = &estimateJSON{Values: e.Values, Bytes: e.Bytes, Growth: e.Growth, Seconds: e.Duration.Seconds(), Fits: e.Fits()}
		if e.Space != nil {
			j.Estimate.DatabaseSize, j.Estimate.Quota = e.Space.Size, e.Space.Quota
		}
	}
	j.Purge, j.Error = purgedJSON(o), text(o.err)
	return j
}
