package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// rotate carries out `etcdseal rotate`: it has all data keys wrapped by the current
// versions of the KEKs that the rules name.
func rotate(ctx context.Context, args []string, s streams) int {
	flags := newToolFlags("rotate")
	yes := flags.set.Bool("yes", false, "do not ask")
	dry := flags.set.Bool("dry-run", false, "show what would be done, and do nothing")
	drop := flags.set.String("drop-kek", "", "remove all wrappings by the KEK `NAME`, which no rule of any process may name any more")
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	d, err := openRotator(ctx, *flags.config, s.err, slog.New(slog.DiscardHandler))
	if err != nil {
		return fail(s, err)
	}
	defer d.close()
	show := func(r *dek.Rotation, dry bool) error {
		if *flags.output == outputJSON {
			return printJSON(s.out, newRotationOutput(r, dry))
		}
		return printRotation(s.out, r, dry)
	}
	planned, err := d.keyring.Rotate(ctx, dek.RotateOptions{DropKEK: *drop, DryRun: true})
	if err != nil {
		return fail(s, err)
	}
	if *dry || len(planned.Changed) == 0 {
		return finish(s, rotationStatus(planned), show(planned, *dry))
	}
	if !*yes {
		if err := printRotation(s.err, planned, true); err != nil {
			return fail(s, err)
		}
		if !confirm(ctx, s, fmt.Sprintf("Rewrap %s?", records(len(planned.Changed)))) {
			return fail(s, errDeclined)
		}
	}
	done, err := d.keyring.Rotate(ctx, dek.RotateOptions{DropKEK: *drop})
	if done == nil {
		return fail(s, err)
	}
	if err != nil {
		fmt.Fprintf(s.err, "etcdseal: %v: what was done stays, run it again to go on\n", err)
		return finish(s, exitFound, show(done, false))
	}
	return finish(s, rotationStatus(done), show(done, false))
}

// finish returns a verb's status, unless its output could not be printed.
func finish(s streams, status int, err error) int {
	if err != nil {
		return report(s, fmt.Errorf("printing: %w", err))
	}
	return status
}

func rotationStatus(r *dek.Rotation) int {
	if len(r.Failed)+len(r.Homeless)+len(r.KEKs) > 0 {
		return exitFound
	}
	return exitDone
}

// records counts records in words.
func records(n int) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}

// printRotation prints a rotation as a table.
func printRotation(to io.Writer, r *dek.Rotation, dry bool) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if len(r.Changed)+len(r.Failed) > 0 {
		fmt.Fprintln(table, "DEK\tADDED\tDROPPED\tERROR")
	}
	for _, one := range append(append([]dek.Rewrapping(nil), r.Changed...), r.Failed...) {
		var dropped []string
		for _, v := range one.Dropped {
			dropped = append(dropped, shown(v.KEK)+" "+shown(v.Version))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", one.ID, dash(strings.Join(one.Added, ", ")), dash(strings.Join(dropped, ", ")), dash(text(one.Err)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, k := range r.KEKs {
		fmt.Fprintf(to, "KEK %s does not say which version it has, so nothing was wrapped by it: %v\n", k.KEK, k.Err)
	}
	for _, id := range r.Homeless {
		fmt.Fprintf(to, "DEK %s could belong to several rules and was left alone: let the rule that it was made for, and no other, name its old KEK under recoveryKEKs for once, or seal its values anew: etcdseal reencrypt\n", id)
	}
	verb := map[bool]string{true: "would be rewrapped", false: "rewrapped"}[dry]
	_, err := fmt.Fprintf(to, "%s: %d %s, %d failed, %d as they should be.\n", records(r.Records), len(r.Changed), verb, len(r.Failed),
		r.Records-len(r.Changed)-len(r.Failed)-len(r.Homeless))
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// rotationOutput is the JSON of a rotation.
type rotationOutput struct {
	DryRun   bool               `json:"dryRun"`
	Records  int                `json:"records"`
	Changed  []rewrappingOutput `json:"changed"`
	Failed   []rewrappingOutput `json:"failed"`
	Homeless []string           `json:"homeless"`
	KEKs     []kekErrorOutput   `json:"kekErrors"`
}

type rewrappingOutput struct {
	DEK     string          `json:"dek"`
	Added   []string        `json:"added"`
	Dropped []versionOutput `json:"dropped"`
	Error   string          `json:"error,omitempty"`
}

type versionOutput struct {
	KEK     string `json:"kek"`
	Version string `json:"version"`
}

type kekErrorOutput struct {
	KEK   string `json:"kek"`
	Error string `json:"error"`
}

func newRotationOutput(r *dek.Rotation, dry bool) rotationOutput {
	out := rotationOutput{DryRun: dry, Records: r.Records, Changed: rewrappings(r.Changed), Failed: rewrappings(r.Failed), Homeless: []string{}, KEKs: kekErrors(r.KEKs)}
	for _, id := range r.Homeless {
		out.Homeless = append(out.Homeless, id.String())
	}
	return out
}

func rewrappings(list []dek.Rewrapping) []rewrappingOutput {
	out := []rewrappingOutput{}
	for _, one := range list {
		r := rewrappingOutput{DEK: one.ID.String(), Added: append([]string{}, one.Added...), Dropped: []versionOutput{}, Error: text(one.Err)}
		for _, v := range one.Dropped {
			r.Dropped = append(r.Dropped, versionOutput(v))
		}
		out = append(out, r)
	}
	return out
}

func kekErrors(list []dek.KEKError) []kekErrorOutput {
	out := []kekErrorOutput{}
	for _, k := range list {
		out = append(out, kekErrorOutput{KEK: k.KEK, Error: text(k.Err)})
	}
	return out
}
