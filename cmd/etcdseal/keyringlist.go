package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// listTimeout bounds the reading of a keyring.
const listTimeout = 30 * time.Second

// listKeyring carries out `etcdseal keyring list`. It asks no KEK.
func listKeyring(ctx context.Context, args []string, s streams) int {
	flags := newToolFlags("keyring list")
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	listing, err := readListing(ctx, *flags.config, s)
	if err != nil {
		return fail(s, err)
	}
	status := exitDone
	for _, r := range listing.Records {
		if r.Err != nil {
			status = exitFound
		}
	}
	if *flags.output == outputJSON {
		return finish(s, status, printJSON(s.out, newListingOutput(listing)))
	}
	return finish(s, status, printListing(s.out, listing))
}

// readListing reads the keyring of a configuration.
func readListing(ctx context.Context, file string, s streams) (*dek.Listing, error) {
	t, err := openKeyless(ctx, file, s.err, toolLogger(s.err))
	if err != nil {
		return nil, err
	}
	defer t.close()
	return t.listing(ctx)
}

func (t *etcdTool) listing(ctx context.Context) (*dek.Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return dek.List(ctx, t.store, t.config.Keyring.Name)
}

// printListing prints a keyring as a table.
func printListing(to io.Writer, l *dek.Listing) error {
	fmt.Fprintf(to, "Keyring %s: %s, %d tombstones\n\n", l.Keyring, records(len(l.Records)), len(l.Tombstones))
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEK\tCREATED\tSEALS UNTIL\tWRAPPED BY")
	for _, r := range l.Records {
		if r.Err == nil {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.ID, r.Record.Created.Format(time.RFC3339), r.Record.SealUntil.Format(time.RFC3339), wrappedBy(versionsOf(r.Record)))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range l.Records {
		if r.Err != nil {
			fmt.Fprintf(&b, "Record %s is of no use here: %v\n", r.ID, r.Err)
		}
	}
	for _, id := range l.Tombstones {
		fmt.Fprintf(&b, "Tombstone %s\n", id)
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func versionsOf(r *dek.Record) []dek.KEKVersion {
	var versions []dek.KEKVersion
	for _, w := range r.Wrappings {
		versions = append(versions, dek.KEKVersion{KEK: w.KEK, Version: w.Version})
	}
	return versions
}

func wrappedBy(versions []dek.KEKVersion) string {
	var list []string
	for _, v := range versions {
		list = append(list, shown(v.KEK)+" "+shown(v.Version))
	}
	return strings.Join(list, ", ")
}

// listingOutput is the JSON of a keyring.
type listingOutput struct {
	Keyring    string         `json:"keyring"`
	Cluster    string         `json:"cluster"`
	Revision   int64          `json:"revision"`
	Records    []listedOutput `json:"records"`
	Tombstones []string       `json:"tombstones"`
}

type listedOutput struct {
	DEK       string          `json:"dek"`
	Revision  int64           `json:"revision"`
	Bytes     int             `json:"bytes"`
	Created   *time.Time      `json:"created,omitempty"`
	SealUntil *time.Time      `json:"sealUntil,omitempty"`
	Wrappings []versionOutput `json:"wrappings"`
	Error     string          `json:"error,omitempty"`
}

func newListingOutput(l *dek.Listing) listingOutput {
	out := listingOutput{Keyring: l.Keyring, Cluster: strconv.FormatUint(l.ClusterID, 16), Revision: l.Revision, Records: []listedOutput{}, Tombstones: []string{}}
	for _, r := range l.Records {
		one := listedOutput{DEK: r.ID.String(), Revision: r.Revision, Bytes: len(r.Data), Wrappings: []versionOutput{}, Error: text(r.Err)}
		if r.Record != nil {
			one.Created, one.SealUntil = &r.Record.Created, &r.Record.SealUntil
			one.Wrappings = versionOutputs(versionsOf(r.Record))
		}
		out.Records = append(out.Records, one)
	}
	for _, id := range l.Tombstones {
		out.Tombstones = append(out.Tombstones, id.String())
	}
	return out
}

func versionOutputs(versions []dek.KEKVersion) []versionOutput {
	out := []versionOutput{}
	for _, v := range versions {
		out = append(out, versionOutput(v))
	}
	return out
}
