package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/migrate"
)

// survey is what a status says of the values.
type survey struct {
	found *migrate.Survey // nil if err is not
	err   error
}

// survey counts what is under the rules: keys alone, which etcd has in its index, or with
// scan by reading and opening every value. What fails is a part of the status: what is
// said of the KEKs is true without it.
func (d *daemon) survey(ctx context.Context, scan bool) survey {
	client, err := d.dialEtcd()
	if err != nil {
		return survey{err: err}
	}
	engine, err := migrate.New(migrate.Config{KV: client, Keyring: d.keyring, Store: d.store, Rules: diskRules(d.config), Reserved: d.config.Keyring.Prefix})
	if err != nil {
		return survey{err: err}
	}
	if scan {
		found, err := engine.Survey(ctx)
		return survey{found, err}
	}
	found, err := engine.Count(ctx)
	return survey{found, err}
}

// status returns the exit status that the values ask for.
func (v survey) status() int {
	switch {
	case v.err != nil:
		return exitUnable
	case v.found.Failed() > 0:
		return exitFound
	}
	return exitDone
}

// print prints the values as tables.
func (v survey) print(to io.Writer, keyring *dek.Status, now time.Time) error {
	if err := v.printDEKs(to, keyring, now); err != nil {
		return err
	}
	if v.err != nil {
		_, err := fmt.Fprintf(to, "\nWhat is under the rules is not known: %v\n", v.err)
		return err
	}
	return v.printRules(to)
}

func (v survey) printDEKs(to io.Writer, keyring *dek.Status, now time.Time) error {
	fmt.Fprintln(to)
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "DEK\tCREATED\tSEALS UNTIL\tAGE\tWRAPPED BY")
	if v.scanned() {
		fmt.Fprint(table, "\tVALUES")
	}
	fmt.Fprintln(table)
	for _, k := range keyring.DEKs {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s", k.ID, k.Created.Format(time.RFC3339), k.SealUntil.Format(time.RFC3339), age(now.Sub(k.Created)), wrappedBy(k.Wrappings))
		if v.scanned() {
			fmt.Fprintf(table, "\t%d", v.found.Values[k.ID])
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

func (v survey) scanned() bool { return v.err == nil && v.found.Scanned }

// age rounds a duration to what is of interest.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

func (v survey) printRules(to io.Writer) error {
	fmt.Fprintln(to)
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "RULE\tSEALS\tKEYS")
	if v.scanned() {
		fmt.Fprint(table, "\tSEALED\tPLAINTEXT\tEMPTY\tUNDECRYPTABLE")
	}
	fmt.Fprintln(table)
	for _, r := range v.found.Rules {
		seals := map[bool]string{true: "yes", false: "no"}[r.Seals]
		fmt.Fprintf(table, "%s\t%s\t%d", shown(r.Prefix), seals, r.Keys)
		if v.scanned() {
			fmt.Fprintf(table, "\t%d\t%d\t%d\t%d", r.Sealed, r.Plaintext, r.Empty, r.Undecryptable)
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, p := range v.found.Undecryptable {
		fmt.Fprintf(to, "Undecryptable: %s: %v\n", shown(string(p.Key)), p.Err)
	}
	if more := v.found.Failed() - int64(len(v.found.Undecryptable)); more > 0 {
		fmt.Fprintf(to, "Undecryptable: %d more\n", more)
	}
	if v.scanned() {
		_, err := fmt.Fprintf(to, "\nAs of revision %d.\n", v.found.Revision)
		return err
	}
	_, err := fmt.Fprintf(to, "\nKeys as of revision %d; --scan reads the values.\n", v.found.Revision)
	return err
}

// valuesOutput is the JSON of what a status says of DEKs and values.
type valuesOutput struct {
	DEKs          []dekOutput           `json:"deks"`
	Scanned       bool                  `json:"scanned"`
	Revision      int64                 `json:"revision"`
	Rules         []ruleOutput          `json:"rules"`
	Undecryptable []undecryptableOutput `json:"undecryptable"`
	More          int64                 `json:"undecryptableMore"` // beyond those that are named
	ValuesError   string                `json:"valuesError,omitempty"`
}

type dekOutput struct {
	DEK        string          `json:"dek"`
	Created    time.Time       `json:"created"`
	SealUntil  time.Time       `json:"sealUntil"`
	AgeSeconds int64           `json:"ageSeconds"`
	Wrappings  []versionOutput `json:"wrappings"`
	Values     *int64          `json:"values,omitempty"` // with --scan
}

// ruleOutput has the counts of values with --scan only.
type ruleOutput struct {
	Prefix        string `json:"prefix"`
	Seals         bool   `json:"seals"`
	Keys          int64  `json:"keys"`
	Sealed        *int64 `json:"sealed,omitempty"`
	Plaintext     *int64 `json:"plaintext,omitempty"`
	Empty         *int64 `json:"empty,omitempty"`
	Undecryptable *int64 `json:"undecryptable,omitempty"`
}

type undecryptableOutput struct {
	keyJSON
	Error string `json:"error"`
}

// fill adds the values to a status's JSON.
func (v survey) fill(out *statusOutput, keyring *dek.Status, now time.Time) {
	out.valuesOutput = valuesOutput{DEKs: []dekOutput{}, Scanned: v.scanned(), Rules: []ruleOutput{}, Undecryptable: []undecryptableOutput{}, ValuesError: text(v.err)}
	for _, k := range keyring.DEKs {
		one := dekOutput{DEK: k.ID.String(), Created: k.Created, SealUntil: k.SealUntil, AgeSeconds: int64(now.Sub(k.Created).Seconds()), Wrappings: versionOutputs(k.Wrappings)}
		if v.scanned() {
			n := v.found.Values[k.ID]
			one.Values = &n
		}
		out.DEKs = append(out.DEKs, one)
	}
	if v.err != nil {
		return
	}
	out.Revision = v.found.Revision
	out.More = v.found.Failed() - int64(len(v.found.Undecryptable))
	for _, r := range v.found.Rules {
		one := ruleOutput{Prefix: r.Prefix, Seals: r.Seals, Keys: r.Keys}
		if v.scanned() {
			one.Sealed, one.Plaintext, one.Empty, one.Undecryptable = &r.Sealed, &r.Plaintext, &r.Empty, &r.Undecryptable
		}
		out.Rules = append(out.Rules, one)
	}
	for _, p := range v.found.Undecryptable {
		out.Undecryptable = append(out.Undecryptable, undecryptableOutput{newKeyJSON(p.Key), p.Err.Error()})
	}
}
