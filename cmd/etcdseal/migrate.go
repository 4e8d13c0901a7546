package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/migrate"
)

// defaultRate is how many values a second are written: low enough that clients hardly
// notice.
const defaultRate = 1000

// migrateFlags are the flags of the verbs that change what is in etcd.
type migrateFlags struct {
	config, prefix, output string
	olderThan, dek         string
	rate                   int
	quota                  int64
	dryRun, yes, purge     bool
}

func (f *migrateFlags) define(flags *flag.FlagSet, kind migrate.Kind) {
	flags.StringVar(&f.config, "config", "", "read the configuration from `FILE`, the one of the proxies")
	flags.StringVar(&f.prefix, "prefix", "", "take only the keys that begin with `PREFIX`")
	flags.IntVar(&f.rate, "rate", defaultRate, "write at most `N` values a second; 0 is no bound")
	flags.Int64Var(&f.quota, "quota", 0, "etcd's quota in `BYTES`, for one before 3.6 that has another than 2 GiB")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be done")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	flags.BoolVar(&f.purge, "purge", false, "afterwards compact and defragment, so that the old values leave etcd's files")
	flags.StringVar(&f.output, "o", "text", "print the result as `text` or json, and no progress with it")
	if kind == migrate.Reencrypt {
		flags.StringVar(&f.olderThan, "older-than", "", "take values whose DEK was made before `TIME` (RFC 3339) or longer ago than a duration (720h); default: now")
		flags.StringVar(&f.dek, "dek", "", "take values under the DEK with this `ID`")
	}
}

func encrypt(ctx context.Context, args []string, s streams) int {
	return migrateVerb(ctx, migrate.Encrypt, args, s)
}

func decrypt(ctx context.Context, args []string, s streams) int {
	return migrateVerb(ctx, migrate.Decrypt, args, s)
}

func reencrypt(ctx context.Context, args []string, s streams) int {
	return migrateVerb(ctx, migrate.Reencrypt, args, s)
}

// migrateVerb carries out encrypt, decrypt and reencrypt.
func migrateVerb(ctx context.Context, kind migrate.Kind, args []string, s streams) int {
	var f migrateFlags
	flags := flag.NewFlagSet(kind.String(), flag.ContinueOnError)
	f.define(flags, kind)
	if status, ok := parseFlags(flags, args, s); !ok {
		return status
	}
	if !required(flags, "config", f.config, s) {
		return exitUnable
	}
	if f.output != "text" && f.output != "json" {
		return fail(s, fmt.Errorf("-o is %q, want text or json", f.output))
	}
	s.asJSON(f.output)
	job, err := f.job(kind, time.Now())
	if err != nil {
		return fail(s, err)
	}
	t, err := openEtcdTool(ctx, f.config, s.err, toolLogger(s.err))
	if err != nil {
		return fail(s, err)
	}
	defer t.close()
	return t.migrate(ctx, job, f, s)
}

// job says what is asked for.
func (f *migrateFlags) job(kind migrate.Kind, now time.Time) (migrate.Job, error) {
	job := migrate.Job{Kind: kind, Prefix: f.prefix, DryRun: f.dryRun}
	if kind != migrate.Reencrypt {
		return job, nil
	}
	now = now.UTC().Truncate(time.Second) // as records say when a DEK was made
	switch {
	case f.dek != "" && f.olderThan != "":
		return job, errors.New("--dek and --older-than cannot be given together")
	case f.dek != "":
		id, err := envelope.ParseID(f.dek)
		if err != nil {
			return job, fmt.Errorf("--dek: %w", err)
		}
		job.DEK = id
	case f.olderThan == "":
		job.OlderThan = now
	default:
		if age, err := time.ParseDuration(f.olderThan); err == nil {
			job.OlderThan = now.Add(-age)
			return job, nil
		}
		at, err := time.Parse(time.RFC3339, f.olderThan)
		if err != nil {
			return job, fmt.Errorf("--older-than is %q, want a time such as %s or a duration such as 720h", f.olderThan, now.Format(time.RFC3339))
		}
		job.OlderThan = at
	}
	return job, nil
}

// migrate does a job and says how it went.
func (t *etcdTool) migrate(ctx context.Context, job migrate.Job, f migrateFlags, s streams) int {
	rules, err := t.migrateRules()
	if err != nil {
		return fail(s, err)
	}
	shown := newProgress(s, f.output == "text")
	defer shown.end()
	engine, err := migrate.New(migrate.Config{
		KV: t.client, Maintenance: t.client, Endpoints: t.config.Etcd.Endpoints,
		Keyring: t.keyring, Store: t.store, Rules: rules, Reserved: t.config.Keyring.Prefix,
		Rate: f.rate, Quota: f.quota, Progress: shown.show, Logger: t.logger,
	})
	if err != nil {
		return fail(s, err)
	}
	if !job.DryRun && !f.yes {
		look := job
		look.DryRun = true
		planned, err := engine.Run(ctx, look)
		shown.end()
		if err != nil {
			return fail(s, err)
		}
		printPlan(s.err, planned)
		if !confirm(ctx, s, fmt.Sprintf("%s %d values in %v?", job.Kind, planned.Left, t.config.Etcd.Endpoints)) {
			return fail(s, errDeclined)
		}
	}
	if !job.OlderThan.IsZero() && !job.DryRun {
		fmt.Fprintf(s.err, "Taking the values whose DEK was made before %s; to go on after an interruption, say --older-than %[1]s\n", job.OlderThan.Format(time.RFC3339))
	}
	result, err := engine.Run(ctx, job)
	shown.end()
	var purged *migrate.Purged
	var purgeErr error
	// A run that stopped near the quota needs it more than any other.
	if f.purge && !job.DryRun && (err == nil || errors.Is(err, migrate.ErrUnfinished) || errors.Is(err, migrate.ErrQuota)) {
		if !f.yes && !confirm(ctx, s, purgeQuestion) {
			purgeErr = errDeclined
		} else {
			purged, purgeErr = engine.Purge(ctx, t.client)
		}
	}
	return printResult(s, outcome{result, err, purged, purgeErr}, f.output)
}

// outcome is how a job and the purge after it ended.
type outcome struct {
	result   *migrate.Result
	err      error
	purged   *migrate.Purged // nil if there was none
	purgeErr error
}

// status is the exit status.
func (o outcome) status() int {
	switch {
	case o.err != nil && !errors.Is(o.err, migrate.ErrUnfinished):
		return exitUnable
	case o.err != nil, !o.result.Clean(), o.purgeErr != nil:
		return exitFound
	}
	return exitDone
}

// printResult prints how a job ended and returns the exit status.
func printResult(s streams, o outcome, output string) int {
	r := o.result
	printing := o.print(s.out, output)
	for _, p := range r.Problems {
		fmt.Fprintf(s.err, "etcdseal: %s: %v\n", shown(string(p.Key)), p.Err)
	}
	if r.Omitted > 0 {
		fmt.Fprintf(s.err, "etcdseal: %d further values were left as they are\n", r.Omitted)
	}
	if o.err != nil {
		fmt.Fprintf(s.err, "etcdseal: %v\n", o.err)
		if r.Changed > 0 && o.status() == exitUnable {
			fmt.Fprintf(s.err, "The %d values done so far stay as they are now; run the same again to go on.\n", r.Changed)
		}
	}
	if o.purgeErr != nil {
		fmt.Fprintf(s.err, "etcdseal: %v\n", o.purgeErr)
	}
	return finish(s, o.status(), printing)
}

// print prints what is known of a job and its purge.
func (o outcome) print(to io.Writer, output string) error {
	if output == outputJSON {
		return printJSON(to, resultJSON(o))
	}
	var b strings.Builder
	if o.result.DryRun && o.err == nil {
		printPlan(&b, o.result)
	} else {
		printText(&b, o.result)
		printPurged(&b, o.purged)
	}
	_, err := io.WriteString(to, b.String())
	return err
}
