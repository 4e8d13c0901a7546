package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Exit statuses, the same for every verb.
const (
	exitDone   = 0 // did what was asked
	exitFound  = 1 // finished but found something wrong
	exitUnable = 2 // could not run, or was called in a wrong way
)

// streams are the process's standard streams.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// json is set once a verb knows that its output is to be JSON, which a failure is
	// then, too. All copies share it. nil: it never is.
	json *bool
}

// verb is one thing that etcdseal can do.
type verb struct {
	name    string // as it is written, possibly two words
	args    string // what comes after the name
	summary string // what it does, in one line
	run     func(ctx context.Context, args []string, s streams) int
}

// verbs returns every verb in the order of the usage text.
func verbs() []verb {
	return []verb{
		{"serve", "--config FILE", "run the proxy until SIGTERM or SIGINT", serve},
		{"encrypt", "--config FILE", "seal the plaintext that is in etcd under the rules", encrypt},
		{"decrypt", "--config FILE", "open for good what is sealed, before etcdseal is removed", decrypt},
		{"reencrypt", "--config FILE", "seal values again, with a fresh data key", reencrypt},
		{"verify", "--config FILE", "look for plaintext that should be sealed, in etcd or in its files", verify},
		{"doctor", "--config FILE", "look at everything that etcdseal depends on, before it goes live", examine},
		{"inspect", "--file FILE", "say what a stored value or record is, without any key", inspect},
		{"rotate", "--config FILE [--yes]", "have all data keys wrapped by the KEKs' current versions", rotate},
		{"status", "--config FILE", "say what is sealed, by which data keys, and which KEK versions are safe to disable", status},
		{"keyring list", "--config FILE", "list the keyring's records and tombstones, without any key", listKeyring},
		{"keyring export", "--config FILE", "write all wrapped records to a file, for escrow", exportKeyring},
		{"keyring import", "--config FILE", "put records of an export back that are missing", importKeyring},
		{"keyring gc", "--config FILE", "remove the records of data keys that nothing needs any more", collectKeyring},
		{"keyring new-kek", "--out FILE", "make a local key-encryption key", newKEK},
		{"version", "", "say which build this is", printVersion},
	}
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := streams{in: stdin, out: stdout, err: stderr, json: new(bool)}
	if len(args) == 0 {
		fmt.Fprint(s.err, usage())
		return exitUnable
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		fmt.Fprint(s.out, usage())
		return exitDone
	}
	for _, v := range verbs() {
		words := strings.Fields(v.name)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == v.name {
			return v.run(ctx, args[len(words):], s)
		}
	}
	fmt.Fprintf(s.err, "etcdseal: no verb %q\n\n%s", strings.Join(args[:min(2, len(args))], " "), usage())
	return exitUnable
}

// usage returns the text of `etcdseal help`.
func usage() string {
	var b strings.Builder
	b.WriteString("etcdseal seals the values of chosen etcd keys between etcd's clients and etcd.\n\nUsage:\n")
	for _, v := range verbs() {
		fmt.Fprintf(&b, "  etcdseal %-33s %s\n", v.name+" "+v.args, v.summary)
	}
	b.WriteString("\nExit status: 0 done, 1 finished but found something wrong, 2 could not run or usage.\n")
	return b.String()
}

// parseFlags reads a verb's flags and refuses arguments after them. When it
// returns false, the verb ends with the status that comes with it.
func parseFlags(flags *flag.FlagSet, args []string, s streams) (status int, ok bool) {
	flags.SetOutput(io.Discard) // what it would say is said below
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(s.out, flagUsage(flags))
		return exitDone, false
	case err != nil:
		fmt.Fprintf(s.err, "etcdseal %s: %v\n\n%s", flags.Name(), err, flagUsage(flags))
		return exitUnable, false
	case flags.NArg() > 0:
		fmt.Fprintf(s.err, "etcdseal %s: unexpected argument %q\n\n%s", flags.Name(), flags.Arg(0), flagUsage(flags))
		return exitUnable, false
	}
	return exitDone, true
}

// flagUsage returns the text of a verb's --help.
func flagUsage(flags *flag.FlagSet) string {
	var b strings.Builder
	for _, v := range verbs() {
		if v.name == flags.Name() {
			fmt.Fprintf(&b, "Usage: etcdseal %s\n  %s\n", strings.TrimSpace(v.name+" "+v.args), v.summary)
		}
	}
	flags.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "  --%-20s %s\n", f.Name+" "+value, usage)
	})
	return b.String()
}

// required reports a flag that must be given and was not.
func required(flags *flag.FlagSet, name, value string, s streams) bool {
	if value != "" {
		return true
	}
	fmt.Fprintf(s.err, "etcdseal %s: --%s is required\n\n%s", flags.Name(), name, flagUsage(flags))
	return false
}

// fail reports why a verb could not run. Where JSON was asked for, the standard output gets
// it as well; only what is wrong with the command line itself is said on the standard error alone.
func fail(s streams, err error) int {
	if s.json != nil && *s.json {
		_ = printJSON(s.out, failureOutput{text(err)}) // the status and the standard error say it, too
	}
	return report(s, err)
}

// failureOutput is the JSON of a verb that could not run.
type failureOutput struct {
	Error string `json:"error"`
}

// report is fail for a verb that has printed what it has to say, or could not.
func report(s streams, err error) int {
	fmt.Fprintf(s.err, "etcdseal: %v\n", err)
	return exitUnable
}

// asJSON notes in which form a verb is to print.
func (s streams) asJSON(output string) {
	if s.json != nil {
		*s.json = output == outputJSON
	}
}
