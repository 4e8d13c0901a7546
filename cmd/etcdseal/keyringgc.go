package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/migrate"
)

// collectKeyring carries out `etcdseal keyring gc`. It asks no KEK.
func collectKeyring(ctx context.Context, args []string, s streams) int {
	flags := newToolFlags("keyring gc")
	yes := flags.set.Bool("yes", false, "do not ask")
	dry := flags.set.Bool("dry-run", false, "show what would be removed, and do nothing")
	margin := flags.set.Duration("margin", migrate.DefaultMargin, "keep a record for this `DURATION` after its DEK has ended")
	export := flags.set.String("export", "", "first write what is removed to `FILE`, which must not exist yet, so that it can be undone")
	noExport := flags.set.Bool("no-export", false, "remove without a copy")
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	switch {
	case *margin <= 0:
		return fail(s, errors.New("keyring gc: --margin is not positive: clocks differ"))
	case !*dry && (*export == "") != *noExport:
		return fail(s, errors.New("keyring gc: either --export FILE, from which `keyring import --undo-gc` puts a record back, or --no-export is needed"))
	}
	t, err := openKeyless(ctx, *flags.config, s.err, toolLogger(s.err))
	if err != nil {
		return fail(s, err)
	}
	defer t.close()
	show := func(c *migrate.Collection, dry bool) error {
		if *flags.output == outputJSON {
			return printJSON(s.out, newCollectionOutput(c, dry))
		}
		return printCollection(s.out, c, dry)
	}
	collector, err := t.collector(*margin)
	if err != nil {
		return fail(s, err)
	}
	plan, err := collector.Plan(ctx)
	if err != nil {
		return fail(s, err)
	}
	due := plan.With(migrate.FateDue)
	if *dry || len(due) == 0 {
		return finish(s, collectionStatus(plan), show(plan, *dry))
	}
	if !*yes {
		if err := printCollection(s.err, plan, true); err != nil {
			return fail(s, err)
		}
		if !confirm(s, fmt.Sprintf("Remove %s for good?", records(len(due)))) {
			return fail(s, errDeclined)
		}
	}
	if *export != "" {
		if err := writeExport(*export, t.exportOf(due, plan.Revision)); err != nil {
			return fail(s, err)
		}
	}
	if err := collector.Collect(ctx, plan); err != nil {
		return fail(s, err)
	}
	return finish(s, collectionStatus(plan), show(plan, false))
}

// collector returns what removes records, if the store is one that lets it.
func (t *etcdTool) collector(margin time.Duration) (*migrate.Collector, error) {
	store, ok := t.store.(dek.Burier)
	if !ok {
		return nil, errors.New("keyring gc: with keyring.store: file records are never removed")
	}
	return migrate.NewCollector(migrate.CollectorConfig{
		KV: t.client, Store: store, Keyring: t.config.Keyring.Name, Auditor: t.auditor(), Margin: margin, Logger: t.logger,
	})
}

// exportOf returns an export of some records.
func (t *etcdTool) exportOf(list []*migrate.Collected, revision int64) *dek.Export {
	l := &dek.Listing{Keyring: t.config.Keyring.Name, ClusterID: t.store.ClusterID(), Revision: revision}
	for _, r := range list {
		l.Records = append(l.Records, r.Listed)
	}
	return l.Export(time.Now())
}

func collectionStatus(c *migrate.Collection) int {
	if c.Unchecked != nil || len(c.With(migrate.FateFailed))+len(c.With(migrate.FatePutBack))+len(c.With(migrate.FateStrange)) > 0 {
		return exitFound
	}
	return exitDone
}

// fateText says what is, or was, done about a record and why.
func fateText(r *migrate.Collected) string {
	switch r.Fate {
	case migrate.FateSeals:
		return "kept: its DEK seals until " + r.Record.SealUntil.Format(time.RFC3339) + ", and the margin is not over"
	case migrate.FateUsed:
		return fmt.Sprintf("kept: %d values and %d in history, one is %s", r.Live, r.Past, r.Key)
	case migrate.FateStrange:
		return "kept: " + text(r.Err)
	case migrate.FateDue:
		return "nothing needs it"
	case migrate.FatePutBack:
		return fmt.Sprintf("put back: a value was written meanwhile, one is %s", r.Key)
	case migrate.FateFailed:
		return "not removed: " + text(r.Err)
	default:
		return string(r.Fate)
	}
}

// printCollection prints what was found or done as a table.
func printCollection(to io.Writer, c *migrate.Collection, dry bool) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEK\tRECORD")
	for _, r := range c.Records {
		fmt.Fprintf(table, "%s\t%s\n", r.ID, fateText(r))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if c.Unchecked != nil {
		fmt.Fprintf(to, "Whether a value was written in the moment of the removal is not known: %v: run `etcdseal status --scan`\n", c.Unchecked)
	}
	n, verb := len(c.With(migrate.FateBuried)), "removed"
	if dry {
		n, verb = len(c.With(migrate.FateDue)), "would be removed"
	}
	_, err := fmt.Fprintf(to, "%s: %d %s.\n", records(len(c.Records)), n, verb)
	return err
}

// collectionOutput is the JSON of a collection.
type collectionOutput struct {
	DryRun    bool              `json:"dryRun"`
	Revision  int64             `json:"revision"`
	Compacted int64             `json:"compactedRevision"`
	Records   []collectedOutput `json:"records"`
	Unchecked string            `json:"unchecked,omitempty"`
}

type collectedOutput struct {
	DEK     string `json:"dek"`
	Fate    string `json:"fate"`
	Values  int64  `json:"values"`
	History int64  `json:"history"`
	Key     string `json:"key,omitempty"`
	Error   string `json:"error,omitempty"`
}

func newCollectionOutput(c *migrate.Collection, dry bool) collectionOutput {
	out := collectionOutput{DryRun: dry, Revision: c.Revision, Compacted: c.Compacted, Records: []collectedOutput{}, Unchecked: text(c.Unchecked)}
	for _, r := range c.Records {
		out.Records = append(out.Records, collectedOutput{r.ID.String(), string(r.Fate), r.Live, r.Past, string(r.Key), text(r.Err)})
	}
	return out
}
