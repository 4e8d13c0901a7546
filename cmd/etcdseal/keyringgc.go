package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/migrate"
)

// gcFlags are the flags of `etcdseal keyring gc`.
type gcFlags struct {
	toolFlags
	yes, dry, noExport *bool
	margin             *time.Duration
	export             *string
}

func newGCFlags() gcFlags {
	f := newToolFlags("keyring gc")
	return gcFlags{
		toolFlags: f,
		yes:       f.set.Bool("yes", false, "do not ask"),
		dry:       f.set.Bool("dry-run", false, "show what would be removed, and do nothing"),
		margin:    f.set.Duration("margin", migrate.DefaultMargin, "keep a record for this `DURATION` after its DEK has ended"),
		export:    f.set.String("export", "", "first write what is removed to `FILE`, which must not exist yet, so that it can be undone"),
		noExport:  f.set.Bool("no-export", false, "remove without a copy"),
	}
}

// check reports flags that do not go together.
func (f gcFlags) check() error {
	switch {
	case *f.margin <= 0:
		return errors.New("keyring gc: --margin is not positive: clocks differ")
	case *f.export == "-":
		return errors.New("keyring gc: --export takes the name of a file: what is removed is to be on a disk before it is removed")
	case !*f.dry && (*f.export == "") != *f.noExport:
		return errors.New("keyring gc: either --export FILE, from which `keyring import --undo-gc` puts a record back, or --no-export is needed")
	}
	return nil
}

// collectKeyring carries out `etcdseal keyring gc`. It asks no KEK.
func collectKeyring(ctx context.Context, args []string, s streams) int {
	// Who reads the output may go away in the middle; what was removed and is needed
	// is put back all the same.
	signal.Ignore(syscall.SIGPIPE)
	flags := newGCFlags()
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	if err := flags.check(); err != nil {
		return fail(s, err)
	}
	t, err := openKeyless(ctx, *flags.config, s.err, toolLogger(s.err))
	if err != nil {
		return fail(s, err)
	}
	defer t.close()
	collector, err := t.collector(*flags.margin)
	if err != nil {
		return fail(s, err)
	}
	plan, err := collector.Plan(ctx)
	if err != nil {
		return fail(s, err)
	}
	if !*flags.dry && len(plan.With(migrate.FateDue)) > 0 {
		if err := t.collect(ctx, collector, plan, flags, s); err != nil {
			return fail(s, err)
		}
	}
	if *flags.output == outputJSON {
		err = printJSON(s.out, newCollectionOutput(plan, *flags.dry))
	} else {
		err = printCollection(s.out, plan, *flags.dry)
	}
	return finish(s, collectionStatus(plan), err)
}

// collect asks, writes the export, and removes what is due. The error says that nothing
// was removed.
func (t *etcdTool) collect(ctx context.Context, collector *migrate.Collector, plan *migrate.Collection, flags gcFlags, s streams) error {
	due := plan.With(migrate.FateDue)
	if !*flags.yes {
		if err := printCollection(s.err, plan, true); err != nil {
			return err
		}
		if !confirm(ctx, s, fmt.Sprintf("Remove %s for good?", records(len(due)))) {
			return errDeclined
		}
	}
	if *flags.export != "" {
		if err := writeExport(*flags.export, t.exportOf(due, plan.Revision)); err != nil {
			return err
		}
	}
	return collector.Collect(ctx, plan)
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
		return fmt.Sprintf("kept: %d values and %d in history, one is %s", r.Live, r.Past, shown(string(r.Key)))
	case migrate.FateStrange:
		return "kept: " + text(r.Err)
	case migrate.FateDue:
		return "nothing needs it"
	case migrate.FatePutBack:
		if r.Key == nil {
			return "put back: etcd was put back to an older state meanwhile, so that what needs it is not known"
		}
		return fmt.Sprintf("put back: a value was written meanwhile, one is %s", shown(string(r.Key)))
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
	*keyJSON
	Error string `json:"error,omitempty"`
}

func newCollectionOutput(c *migrate.Collection, dry bool) collectionOutput {
	out := collectionOutput{DryRun: dry, Revision: c.Revision, Compacted: c.Compacted, Records: []collectedOutput{}, Unchecked: text(c.Unchecked)}
	for _, r := range c.Records {
		one := collectedOutput{DEK: r.ID.String(), Fate: string(r.Fate), Values: r.Live, History: r.Past, Error: text(r.Err)}
		if r.Key != nil {
			key := newKeyJSON(r.Key)
			one.keyJSON = &key
		}
		out.Records = append(out.Records, one)
	}
	return out
}
