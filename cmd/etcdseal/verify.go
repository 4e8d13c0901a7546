package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/migrate"
)

// defaultMaxWALs is how many segments of its write-ahead log etcd keeps by default,
// whatever snapshots it has taken.
const defaultMaxWALs = 5

// verifyReport is what -o json prints.
type verifyReport struct {
	Checked   int64         `json:"checked"` // values, or records in files
	Sealed    int64         `json:"sealed"`
	Revision  int64         `json:"revision,omitempty"`
	Compacted int64         `json:"compactedRevision,omitempty"`
	Files     int           `json:"files,omitempty"`
	Bytes     int64         `json:"bytes,omitempty"`
	Findings  []findingJSON `json:"findings"`
	Total     int64         `json:"findingsTotal"` // of which Findings has the first
	Steps     []string      `json:"steps"`
	Error     string        `json:"error,omitempty"`
}

type findingJSON struct {
	Place string `json:"place"`
	keyJSON
	Revision int64  `json:"revision,omitempty"`
	File     string `json:"file,omitempty"`
	Offset   int64  `json:"offset,omitempty"`
	Record   string `json:"record,omitempty"`
	What     string `json:"what"`
}

// maxFindings bounds the findings that -o json prints.
const maxFindings = 100_000

// verify carries out `etcdseal verify`: it looks for values that should be sealed and
// are not, in etcd or in its files.
func verify(ctx context.Context, args []string, s streams) int {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	file := flags.String("config", "", "read the configuration from `FILE`")
	prefix := flags.String("prefix", "", "take only the keys that begin with `PREFIX`; not with --data-dir")
	history := flags.Bool("history", false, "look at every revision that etcd retains, too")
	dir := flags.String("data-dir", "", "look through a stopped member's data directory, a copy of one, or a snapshot, at `PATH`, instead of asking etcd")
	maxWALs := flags.Int("max-wals", defaultMaxWALs, "etcd's setting of that name: `N` segments of its log are kept")
	output := flags.String("o", "text", "print the result as `text` or json")
	if status, ok := parseFlags(flags, args, s); !ok {
		return status
	}
	if !required(flags, "config", *file, s) {
		return exitUnable
	}
	if *output != "text" && *output != "json" {
		return fail(s, fmt.Errorf("-o is %q, want text or json", *output))
	}
	s.asJSON(*output)
	if *dir != "" && (*history || *prefix != "") {
		return fail(s, fmt.Errorf("--data-dir goes with neither --history nor --prefix"))
	}
	v := &verification{s: s, text: *output == "text", places: map[migrate.Place]bool{}, wals: map[string]bool{}, maxWALs: *maxWALs}
	v.report.Findings, v.report.Steps = []findingJSON{}, []string{}
	var err error
	if *dir != "" {
		err = v.disk(ctx, *file, *dir)
	} else {
		err = v.etcd(ctx, *file, *prefix, *history)
	}
	return v.end(err)
}

// verification is one run of the verb.
type verification struct {
	s       streams
	text    bool
	report  verifyReport
	places  map[migrate.Place]bool
	wals    map[string]bool
	other   bool // findings in files that are no segments
	maxWALs int
}

func (v *verification) etcd(ctx context.Context, file, prefix string, history bool) error {
	t, err := openEtcdTool(ctx, file, v.s.err, toolLogger(v.s.err))
	if err != nil {
		return err
	}
	defer t.close()
	rules, err := t.migrateRules()
	if err != nil {
		return err
	}
	engine, err := migrate.New(migrate.Config{KV: t.client, Keyring: t.keyring, Store: t.store, Rules: rules, Reserved: t.config.Keyring.Prefix})
	if err != nil {
		return err
	}
	result, err := engine.Verify(ctx, prefix, history, v.found)
	v.report.Checked, v.report.Sealed, v.report.Revision, v.report.Compacted = result.Keys, result.Sealed, result.Revision, result.Compacted
	return err
}

// disk needs neither etcd nor a KEK.
func (v *verification) disk(ctx context.Context, file, path string) error {
	cfg, err := loadConfig(file)
	if err != nil {
		return err
	}
	scanner, err := migrate.NewScanner(diskRules(cfg), v.found)
	if err != nil {
		return err
	}
	err = scanner.Scan(ctx, path)
	result := scanner.Result()
	v.report.Checked, v.report.Sealed, v.report.Files, v.report.Bytes = result.Records, result.Sealed, len(result.Files), result.Bytes
	return err
}

// diskRules are the rules for a scanner, which wants to know only whether they seal.
func diskRules(cfg *config.Config) []migrate.Rule {
	var rules []migrate.Rule
	for _, r := range cfg.Rules {
		rule := migrate.Rule{Prefix: r.Prefix}
		if r.Seal {
			rule.Sealer = &dek.Sealer{}
		}
		rules = append(rules, rule)
	}
	return rules
}

// found takes in a finding.
func (v *verification) found(f migrate.Finding) {
	v.report.Total++
	v.places[f.Place] = true
	if f.Place == migrate.Disk {
		if strings.HasSuffix(f.File, ".wal") {
			v.wals[f.File] = true
		} else {
			v.other = true
		}
	}
	switch {
	case v.text && f.Place == migrate.Disk:
		fmt.Fprintf(v.s.out, "%s: offset %d: %s: %v (%s)\n", shown(f.File), f.Offset, shown(string(f.Key)), f.Err, f.Kind)
	case v.text:
		fmt.Fprintf(v.s.out, "%s: revision %d: %s: %v\n", f.Place, f.Revision, shown(string(f.Key)), f.Err)
	case len(v.report.Findings) < maxFindings:
		v.report.Findings = append(v.report.Findings, findingJSON{string(f.Place), newKeyJSON(f.Key), f.Revision, f.File, f.Offset, f.Kind, f.Err.Error()})
	}
}

// end says how it ended and what is left to do, and returns the exit status.
func (v *verification) end(err error) int {
	v.steps()
	if err != nil {
		v.report.Error = err.Error()
	}
	printing := v.print(err == nil)
	switch {
	case err != nil:
		return report(v.s, fmt.Errorf("could not look at everything: %w", err))
	case v.report.Total > 0:
		return finish(v.s, exitFound, printing)
	}
	return finish(v.s, exitDone, printing)
}

// print prints what is said at the end, with the counts if everything was looked at.
func (v *verification) print(whole bool) error {
	if !v.text {
		return printJSON(v.s.out, v.report)
	}
	var b strings.Builder
	if whole {
		fmt.Fprintf(&b, "verify: %d looked at, %d sealed, %d findings\n", v.report.Checked, v.report.Sealed, v.report.Total)
	}
	for _, step := range v.report.Steps {
		fmt.Fprintf(&b, "  to do: %s\n", step)
	}
	_, err := io.WriteString(v.s.out, b.String())
	return err
}

// steps says what is left to do.
func (v *verification) steps() {
	add := func(format string, args ...any) {
		v.report.Steps = append(v.report.Steps, fmt.Sprintf(format, args...))
	}
	if v.places[migrate.Live] {
		add("run `etcdseal encrypt`; a value that is sealed and does not open was damaged, moved, or its data key is gone")
	}
	if v.places[migrate.History] {
		add("compact etcd, or wait for its compaction: `etcdseal encrypt --purge` compacts and defragments")
	}
	if v.other {
		add("compact and defragment this member (`etcdseal encrypt --purge`), and remove files that etcd does not need any more (.broken, snapshots, backups)")
	}
	for _, wal := range slices.Sorted(maps.Keys(v.wals)) {
		v.report.Steps = append(v.report.Steps, walStep(wal, v.maxWALs))
	}
	if v.report.Total > 0 {
		add("change the secrets themselves: backups, disk snapshots and stopped members are out of any tool's reach")
	}
}

// walStep says when etcd drops a segment of its log.
func walStep(wal string, keep int) string {
	name := filepath.Base(wal)
	const sooner = "sooner than that: replace the member, that is, remove it and add it with an empty data directory"
	all, err := migrate.Segments(filepath.Dir(wal))
	i := slices.IndexFunc(all, func(s migrate.Segment) bool { return filepath.Base(s.File) == name })
	if err != nil || i < 0 {
		return fmt.Sprintf("%s: it cannot be said when etcd drops it; %s", name, sooner)
	}
	left := migrate.UntilDropped(all, i, keep)
	if left.Bytes == 0 {
		return fmt.Sprintf("%s is dropped when etcd has next taken a snapshot (--snapshot-count) or is started again", name)
	}
	entries := "an unknown number of"
	if left.Entries > 0 {
		entries = fmt.Sprintf("about %d", left.Entries)
	}
	return fmt.Sprintf("%s is dropped after %s more entries (%d bytes of log) and a snapshot of etcd's own after them, with --max-wals=%d; %s", name, entries, left.Bytes, keep, sooner)
}
