package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// importFlags are the flags of `etcdseal keyring import`.
type importFlags struct {
	toolFlags
	in      *string
	yes     *bool
	options *dek.ImportOptions
}

func newImportFlags() importFlags {
	f := newToolFlags("keyring import")
	options := &dek.ImportOptions{}
	f.set.BoolVar(&options.DryRun, "dry-run", false, "show what would be done, and do nothing")
	f.set.Func("undo-gc", "put back the record of the DEK with this `ID` though `keyring gc` removed it; may be repeated", func(text string) error {
		id, err := envelope.ParseID(text)
		options.Undo = append(options.Undo, id)
		return err
	})
	return importFlags{
		toolFlags: f,
		in:        f.set.String("in", "", "read the export from `FILE`; - is standard input, with --yes or --dry-run"),
		yes:       f.set.Bool("yes", false, "do not ask"),
		options:   options,
	}
}

// importKeyring carries out `etcdseal keyring import`.
func importKeyring(ctx context.Context, args []string, s streams) int {
	flags := newImportFlags()
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	if !required(flags.set, "in", *flags.in, s) {
		return exitUnable
	}
	if *flags.in == "-" && !*flags.yes && !flags.options.DryRun {
		return fail(s, errors.New("keyring import: --in - leaves nobody to answer: say --yes or --dry-run"))
	}
	export, err := readExport(*flags.in, s)
	if err != nil {
		return fail(s, err)
	}
	d, err := openRotator(ctx, *flags.config, s.err, slog.New(slog.DiscardHandler))
	if err != nil {
		return fail(s, err)
	}
	defer d.close()
	look := *flags.options
	look.DryRun = true
	done, err := d.keyring.Import(ctx, export, look)
	if err != nil {
		return fail(s, err)
	}
	if !flags.options.DryRun && importWrites(done) > 0 {
		if !*flags.yes {
			if err := askImport(ctx, done, s); err != nil {
				return fail(s, err)
			}
		}
		done, err = d.keyring.Import(ctx, export, *flags.options)
	}
	return endImport(done, err, flags, s)
}

// askImport shows what an import would do, and asks.
func askImport(ctx context.Context, planned []dek.Imported, s streams) error {
	if err := printImport(s.err, planned, true); err != nil {
		return err
	}
	if !confirm(ctx, s, fmt.Sprintf("Put in %s?", records(importWrites(planned)))) {
		return errDeclined
	}
	return nil
}

// endImport says what was done, or would be, and returns the exit status.
func endImport(done []dek.Imported, err error, flags importFlags, s streams) int {
	status := importStatus(done)
	if err != nil {
		if done == nil {
			return fail(s, err)
		}
		fmt.Fprintf(s.err, "etcdseal: %v: what was done stays, run it again to go on\n", err)
		status = exitUnable
	}
	if *flags.output == outputJSON {
		return finish(s, status, printJSON(s.out, newImportOutput(done, flags.options.DryRun)))
	}
	return finish(s, status, printImport(s.out, done, flags.options.DryRun))
}

// readExport reads an export from a file or standard input.
func readExport(file string, s streams) (*dek.Export, error) {
	from := s.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading export: %w", err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, dek.MaxExportSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading export: %w", err)
	}
	return dek.ParseExport(data)
}

// importWrites counts what changes the keyring.
func importWrites(list []dek.Imported) (n int) {
	for _, one := range list {
		switch one.Action {
		case dek.ImportCreated, dek.ImportMerged, dek.ImportExhumed:
			n++
		}
	}
	return n
}

func importStatus(list []dek.Imported) int {
	for _, one := range list {
		if one.Action == dek.ImportRefused {
			return exitFound
		}
	}
	return exitDone
}

// importTexts say what became of a record.
var importTexts = map[dek.ImportAction]string{
	dek.ImportSame:    "is there",
	dek.ImportKept:    "is there with other wrappings, which give the DEK",
	dek.ImportCreated: "put in",
	dek.ImportMerged:  "wrappings put beside those there, which do not give the DEK",
	dek.ImportExhumed: "put back in the place of its tombstone",
	dek.ImportRefused: "refused",
}

// printImport prints an import as a table.
func printImport(to io.Writer, list []dek.Imported, dry bool) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEK\tRECORD")
	refused := 0
	for _, one := range list {
		what := importTexts[one.Action]
		if one.Err != nil {
			refused++
			what += ": " + text(one.Err)
			if errors.Is(one.Err, dek.ErrTombstoned) {
				what += ": --undo-gc " + one.ID.String() + " puts it back"
			}
		}
		fmt.Fprintf(table, "%s\t%s\n", one.ID, what)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	verb := map[bool]string{true: "would be put in", false: "put in"}[dry]
	_, err := fmt.Fprintf(to, "%s: %d %s, %d refused.\n", records(len(list)), importWrites(list), verb, refused)
	return err
}

// importOutput is the JSON of an import.
type importOutput struct {
	DryRun  bool             `json:"dryRun"`
	Records []importedOutput `json:"records"`
}

type importedOutput struct {
	DEK    string `json:"dek"`
	Action string `json:"action"`
	Error  string `json:"error,omitempty"`
}

func newImportOutput(list []dek.Imported, dry bool) importOutput {
	out := importOutput{DryRun: dry, Records: []importedOutput{}}
	for _, one := range list {
		out.Records = append(out.Records, importedOutput{one.ID.String(), string(one.Action), text(one.Err)})
	}
	return out
}
