package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/proxy"
)

// Forms of a verb's output.
const (
	outputText = ""
	outputJSON = "json"
)

// toolFlags are the flags of verbs that work on a keyring without serving.
type toolFlags struct {
	set    *flag.FlagSet
	config *string
	output *string
}

func newToolFlags(verb string) toolFlags {
	set := flag.NewFlagSet(verb, flag.ContinueOnError)
	return toolFlags{
		set:    set,
		config: set.String("config", "", "read the configuration from `FILE`"),
		output: set.String("o", outputText, "print `json` in place of a table"),
	}
}

// parse is parseFlags, and refuses what no verb can do without or with.
func (f toolFlags) parse(args []string, s streams) (status int, ok bool) {
	if status, ok := parseFlags(f.set, args, s); !ok {
		return status, false
	}
	if !required(f.set, "config", *f.config, s) {
		return exitUnable, false
	}
	if *f.output != outputText && *f.output != outputJSON {
		fmt.Fprintf(s.err, "etcdseal %s: -o is json or left out, not %q\n\n%s", f.set.Name(), *f.output, flagUsage(f.set))
		return exitUnable, false
	}
	s.asJSON(*f.output)
	return exitDone, true
}

// openRotator is openTool for the verbs that are about how records are wrapped: it may rewrap
// them, as a proxy does.
func openRotator(ctx context.Context, file string, stdout io.Writer, logger *slog.Logger) (*daemon, error) {
	d, err := openTool(ctx, file, stdout, logger)
	if err != nil {
		return nil, err
	}
	if err := d.wrapBy(d.config); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// openTool opens the keyring of a configuration, and nothing that listens. It rewraps no
// record. What it does with keys is audited as by serve; lines for the standard output go to
// the given writer, since a verb prints there. The daemon is closed by the caller.
func openTool(ctx context.Context, file string, stdout io.Writer, logger *slog.Logger) (_ *daemon, err error) {
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	d := &daemon{file: file, config: cfg, logger: logger, metrics: proxy.NewMetrics(), stdout: stdout}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, open := range []func(context.Context) error{d.openAudit, d.openKEKs, d.openUpstream, d.openKeyring} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// wrapBy has the keyring's records wrapped by the KEKs of all rules, of those that do not
// seal, too: what is sealed under them is to stay readable. A rule that names a KEK which
// takes a restart waits for it.
func (d *daemon) wrapBy(cfg *config.Config) error {
	var sets []dek.Set
	for _, r := range cfg.Rules {
		set := dek.Set{KEK: r.KEK, Recovery: r.RecoveryKEKs}
		if !slices.ContainsFunc(append([]string{r.KEK}, r.RecoveryKEKs...), func(name string) bool { return d.keks[name] == nil }) {
			sets = append(sets, set)
		}
	}
	return d.keyring.WrapBy(sets...)
}

// rotateLag is how long what some process knows of a KEK's version may be out of date, if
// all of them have this configuration.
func rotateLag(cfg *config.Config) time.Duration {
	lag := dek.DefaultRotateLag
	for _, k := range cfg.KEKs {
		if k.KMSv2 != nil {
			lag = max(lag, 5*k.KMSv2.PollInterval)
		}
		if k.AzureKeyVault != nil {
			lag = max(lag, 5*k.AzureKeyVault.PollInterval)
		}
	}
	return lag
}

// printJSON prints one JSON document.
func printJSON(to io.Writer, v any) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// keyJSON is a key of etcd in JSON, which cannot hold all bytes that a key may have.
type keyJSON struct {
	Key   string `json:"key"`
	Bytes []byte `json:"keyBase64,omitempty"` // the key itself, where Key is not
}

func newKeyJSON(key []byte) keyJSON {
	if utf8.Valid(key) {
		return keyJSON{Key: string(key)}
	}
	return keyJSON{Key: string(key), Bytes: key}
}

// confirm asks a yes-or-no question; everything but "y" and "yes" is no, and so is the end
// of ctx. The goroutine that reads never ends then; the process is about to.
func confirm(ctx context.Context, s streams, question string) bool {
	fmt.Fprintf(s.err, "%s [y/N] ", question)
	said := make(chan string, 1)
	go func() { // ends with an answer, or with the process
		var answer string
		if _, err := fmt.Fscanln(s.in, &answer); err != nil {
			answer = ""
		}
		said <- answer
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.err)
		return false
	case answer := <-said:
		if answer == "" {
			fmt.Fprintln(s.err)
		}
		return answer == "y" || answer == "yes"
	}
}

// errDeclined says that a person did not want what a verb would have done.
var errDeclined = errors.New("nothing was done: say yes, or give --yes")

// text returns an error's text, "" for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
