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

// importKeyring carries out `etcdseal keyring import`.
func importKeyring(ctx context.Context, args []string, s streams) int {
	flags := newToolFlags("keyring import")
	in := flags.set.String("in", "", "read the export from `FILE`; - is standard input, with --yes or --dry-run")
	yes := flags.set.Bool("yes", false, "do not ask")
	options := dek.ImportOptions{}
	flags.set.BoolVar(&options.DryRun, "dry-run", false, "show what would be done, and do nothing")
	flags.set.Func("undo-gc", "put back the record of the DEK with this `ID` though `keyring gc` removed it; may be repeated", func(text string) error {
		id, err := envelope.ParseID(text)
		options.Undo = append(options.Undo, id)
		return err
	})
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	if !required(flags.set, "in", *in, s) {
		return exitUnable
	}
	if *in == "-" && !*yes && !options.DryRun {
		return fail(s, errors.New("keyring import: --in - leaves nobody to answer: say --yes or --dry-run"))
	}
	export, err := readExport(*in, s)
	if err != nil {
		return fail(s, err)
	}
	d, err := openTool(ctx, *flags.config, s.err, slog.New(slog.DiscardHandler))
	if err != nil {
		return fail(s, err)
	}
	defer d.close()
	show := func(done []dek.Imported, dry bool, to io.Writer) error {
		if *flags.output == outputJSON {
			return printJSON(s.out, newImportOutput(done, dry))
		}
		return printImport(to, done, dry)
	}
	look := options
	look.DryRun = true
	planned, err := d.keyring.Import(ctx, export, look)
	if err != nil {
		return fail(s, err)
	}
	writes := importWrites(planned)
	if options.DryRun || writes == 0 {
		return finish(s, importStatus(planned), show(planned, options.DryRun, s.out))
	}
	if !*yes {
		if err := printImport(s.err, planned, true); err != nil {
			return fail(s, err)
		}
		if !confirm(s, fmt.Sprintf("Put in %s?", records(writes))) {
			return fail(s, errDeclined)
		}
	}
	done, err := d.keyring.Import(ctx, export, options)
	if err != nil && done == nil {
		return fail(s, err)
	}
	if err != nil {
		fmt.Fprintf(s.err, "etcdseal: %v: what was done stays, run it again to go on\n", err)
		return finish(s, exitUnable, show(done, false, s.out))
	}
	return finish(s, importStatus(done), show(done, false, s.out))
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
