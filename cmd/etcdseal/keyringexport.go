package main

import (
	"context"
	"fmt"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// exportKeyring carries out `etcdseal keyring export`. It asks no KEK.
func exportKeyring(ctx context.Context, args []string, s streams) int {
	flags := newToolFlags("keyring export")
	out := flags.set.String("out", "", "write to `FILE`, which must not exist yet; - is standard output")
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	if !required(flags.set, "out", *out, s) {
		return exitUnable
	}
	if *out == "-" && *flags.output == outputJSON {
		return fail(s, fmt.Errorf("keyring export: -o json says what was written, and --out - writes it to the same place: leave one of them out"))
	}
	listing, err := readListing(ctx, *flags.config, s)
	if err != nil {
		return fail(s, err)
	}
	export := listing.Export(time.Now())
	if *out == "-" {
		data, err := export.Marshal()
		if err == nil {
			_, err = s.out.Write(data)
		}
		return finish(s, exitDone, err)
	}
	if err := writeExport(*out, export); err != nil {
		return fail(s, err)
	}
	if *flags.output == outputJSON {
		return finish(s, exitDone, printJSON(s.out, map[string]any{
			"file": *out, "keyring": export.Keyring, "revision": export.Revision, "records": len(export.Records), "tombstones": len(export.Tombstones),
		}))
	}
	_, err = fmt.Fprintf(s.out, "%s: %s and %d tombstones of the keyring %s, as of revision %d\n", *out, records(len(export.Records)), len(export.Tombstones), export.Keyring, export.Revision)
	return finish(s, exitDone, err)
}

// writeExport writes an export to a new file, and reads it back.
func writeExport(path string, e *dek.Export) error {
	data, err := e.Marshal()
	if err != nil {
		return err
	}
	if _, err := dek.ParseExport(data); err != nil { // before anybody relies on it
		return err
	}
	return writeNewFile(path, data)
}
