package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// status carries out `etcdseal status`: it says what is under the rules, which DEKs there
// are, and which KEKs and versions of them the keyring needs.
func status(ctx context.Context, args []string, s streams) int {
	flags := newToolFlags("status")
	scan := flags.set.Bool("scan", false, "read and open every value under the rules, to count what is sealed, plaintext and undecryptable")
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	d, err := openRotator(ctx, *flags.config, s.err, slog.New(slog.DiscardHandler))
	if err != nil {
		return fail(s, err)
	}
	defer d.close()
	found, err := d.keyring.Status(ctx)
	if err != nil {
		return fail(s, err)
	}
	values := d.survey(ctx, *scan)
	code := values.status()
	if code == exitDone && len(found.Missing)+len(found.Strange)+len(found.Unreadable)+len(found.Unopened)+len(found.KEKs) > 0 {
		code = exitFound
	}
	now := time.Now()
	if *flags.output == outputJSON {
		out := newStatusOutput(found, *flags.config)
		values.fill(&out, found, now)
		return finish(s, code, printJSON(s.out, out))
	}
	err = printStatus(s.out, found, *flags.config)
	if err == nil {
		err = values.print(s.out, found, now)
	}
	return finish(s, code, err)
}

// printStatus prints the status of the keyring of a configuration file as a table.
func printStatus(to io.Writer, found *dek.Status, file string) error {
	fmt.Fprintf(to, "Keyring %s: %s\n\n", found.Keyring, records(found.Records))
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEK\tVERSION\tSTATE\tRECORDS\tNEEDED BY\tSAFE TO DISABLE")
	for _, v := range found.Versions {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%s\n", shown(v.KEK), shown(v.Version), versionState(&v), v.Records, v.Needed, verdict(&v, found.Tombstones))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprint(to, "\nEach verdict is for that version alone, and for what is in the keyring now.\n")
	for _, miss := range found.Missing {
		fmt.Fprintf(to, "DEK %s is not wrapped by KEK %s, which its rules name\n", miss.ID, miss.KEK)
	}
	for _, id := range found.Unreadable {
		fmt.Fprintf(to, "DEK %s is wrapped by no KEK of this configuration\n", id)
	}
	for _, one := range found.Unopened {
		fmt.Fprintf(to, "DEK %s is opened by no KEK of this configuration: %v\n", one.ID, one.Err)
	}
	for _, one := range unknown(found) {
		fmt.Fprintf(to, "Record %s is unknown to this configuration: %s\n", one.DEK, one.Error)
	}
	for _, l := range found.Leftover {
		fmt.Fprintf(to, "KEK %s wraps %s, and no rule of this configuration names it. %s\n", shown(l.KEK), records(l.Records), leftoverAdvice(l, file))
	}
	for _, k := range found.KEKs {
		fmt.Fprintf(to, "KEK %s does not say which version it has: %v\n", k.KEK, k.Err)
	}
	return nil
}

// leftoverAdvice says what to do about wrappings by a KEK that no rule names.
func leftoverAdvice(l dek.LeftoverKEK, file string) string {
	advice := "When no rule of any process names it: " + dropCommand(l, file)
	if l.Alone > 0 {
		return fmt.Sprintf("It alone opens %d of them here: first let a rule name it under recoveryKEKs until they are wrapped by the rule's other KEKs. %s", l.Alone, advice)
	}
	return advice
}

// dropCommand is what removes the wrappings by a KEK, for a shell. The KEK's name may be
// from a record, which somebody else may have written.
func dropCommand(l dek.LeftoverKEK, file string) string {
	if shown(l.KEK) != l.KEK || shown(file) != file {
		return "etcdseal rotate --config FILE --drop-kek NAME"
	}
	return fmt.Sprintf("etcdseal rotate --config %s --drop-kek %s", quoted(file), quoted(l.KEK))
}

// quoted writes a word for a shell.
func quoted(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("-_./:@%+=,", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// shown is text from a record, or a key of etcd, as a terminal and a table may get it:
// whoever can write to etcd chose it.
func shown(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func versionState(v *dek.VersionStatus) string {
	switch {
	case !v.Configured:
		return "not configured"
	case v.Current && v.Used:
		return "current"
	case v.Current:
		return "current, no rule"
	default:
		return "older"
	}
}

// verdict says whether a version is safe to disable, and why not or since when.
func verdict(v *dek.VersionStatus, tombstones int) string {
	if !v.Safe() {
		return "no, because " + strings.Join(v.Because, "; ")
	}
	return "yes, because no record needs it now; " + backups(v, tombstones)
}

// backups says which backups need a version that no record needs.
func backups(v *dek.VersionStatus, tombstones int) string {
	switch {
	case tombstones > 0 && v.Until.IsZero():
		return fmt.Sprintf("which backups need it is unknown, since %s removed for good", removed(tombstones))
	case tombstones > 0:
		return fmt.Sprintf("backups older than %s still need it, and unknown ones, since %s removed for good", v.Until.Format(time.RFC3339), removed(tombstones))
	case v.Until.IsZero():
		return "and no backup, as far as the records say"
	default:
		return fmt.Sprintf("backups older than %s still need it", v.Until.Format(time.RFC3339))
	}
}

func removed(n int) string {
	if n == 1 {
		return "1 record was"
	}
	return fmt.Sprintf("%d records were", n)
}

// statusOutput is the JSON of a keyring's status.
type statusOutput struct {
	Keyring    string                `json:"keyring"`
	Records    int                   `json:"records"`
	Tombstones int                   `json:"tombstones"`
	Versions   []versionStatusOutput `json:"versions"`
	Missing    []missingOutput       `json:"missing"`
	Unreadable []string              `json:"unreadable"`
	Unopened   []recordErrorOutput   `json:"unopened"`
	Unknown    []recordErrorOutput   `json:"unknown"`
	Leftover   []leftoverOutput      `json:"leftover"`
	KEKs       []kekErrorOutput      `json:"kekErrors"`
	valuesOutput
}

// leftoverOutput is a KEK that wraps records and that no rule names.
type leftoverOutput struct {
	KEK     string `json:"kek"`
	Records int    `json:"records"`
	Alone   int    `json:"alone"`
	Command string `json:"command"` // removes its wrappings
}

type versionStatusOutput struct {
	KEK        string   `json:"kek"`
	Version    string   `json:"version"`
	Configured bool     `json:"configured"`
	InRules    bool     `json:"inRules"`
	Current    bool     `json:"current"`
	Records    int      `json:"records"`
	Needed     int      `json:"neededBy"`
	Safe       bool     `json:"safeToDisable"`
	Because    []string `json:"because"`
	// BackupsBefore is a time, "" if there is none, "unknown", or "all" while records
	// need the version.
	BackupsBefore string `json:"backupsBefore"`
}

type missingOutput struct {
	DEK string `json:"dek"`
	KEK string `json:"kek"`
}

type recordErrorOutput struct {
	DEK   string `json:"dek"`
	Error string `json:"error"`
}

func newStatusOutput(found *dek.Status, file string) statusOutput {
	out := statusOutput{
		Keyring: found.Keyring, Records: found.Records, Tombstones: found.Tombstones,
		Versions: []versionStatusOutput{}, Missing: []missingOutput{}, Unreadable: []string{}, Unopened: []recordErrorOutput{}, Leftover: []leftoverOutput{}, Unknown: unknown(found), KEKs: kekErrors(found.KEKs),
	}
	for _, v := range found.Versions {
		out.Versions = append(out.Versions, versionStatusOutput{
			KEK: v.KEK, Version: v.Version, Configured: v.Configured, InRules: v.Used, Current: v.Current, Records: v.Records, Needed: v.Needed,
			Safe: v.Safe(), Because: append([]string{}, v.Because...), BackupsBefore: backupsBefore(&v, found.Tombstones),
		})
	}
	for _, miss := range found.Missing {
		out.Missing = append(out.Missing, missingOutput{miss.ID.String(), miss.KEK})
	}
	for _, l := range found.Leftover {
		out.Leftover = append(out.Leftover, leftoverOutput{l.KEK, l.Records, l.Alone, dropCommand(l, file)})
	}
	for _, one := range found.Unopened {
		out.Unopened = append(out.Unopened, recordErrorOutput{one.ID.String(), text(one.Err)})
	}
	for _, id := range found.Unreadable {
		out.Unreadable = append(out.Unreadable, id.String())
	}
	return out
}

// unknown lists the records that the configuration cannot make anything of.
func unknown(found *dek.Status) []recordErrorOutput {
	list := []recordErrorOutput{}
	for id, err := range found.Strange {
		list = append(list, recordErrorOutput{id.String(), text(err)})
	}
	slices.SortFunc(list, func(a, b recordErrorOutput) int { return strings.Compare(a.DEK, b.DEK) })
	return list
}

func backupsBefore(v *dek.VersionStatus, tombstones int) string {
	switch {
	case v.Needed > 0:
		return "all"
	case tombstones > 0:
		return "unknown"
	case v.Until.IsZero():
		return ""
	default:
		return v.Until.Format(time.RFC3339)
	}
}
