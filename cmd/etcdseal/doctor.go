package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/doctor"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/migrate"
	"github.com/etcdseal/etcdseal/proxy"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// examine carries out `etcdseal doctor`: it looks at everything that etcdseal depends on.
// The status is exitFound if there is a problem; warnings, and what could not be found
// out, are left to who reads them.
func examine(ctx context.Context, args []string, s streams) int {
	flags := newToolFlags("doctor")
	if status, ok := flags.parse(args, s); !ok {
		return status
	}
	cfg, err := config.Read(*flags.config, knownMethods()...)
	if _, of := errors.AsType[*config.Error](err); err != nil && !of {
		return fail(s, err)
	}
	d := &daemon{file: *flags.config, config: cfg, logger: slog.New(slog.DiscardHandler), metrics: proxy.NewMetrics(), stdout: s.err}
	defer d.close()
	patient := doctor.Config{File: *flags.config, Config: cfg, Err: err, Host: host(os.Getenv("GODEBUG"))}
	if cfg != nil {
		d.prepare(&patient)
	}
	defer clear(patient.AuthKey)
	found := doctor.Examine(ctx, patient)
	if ctx.Err() != nil {
		return fail(s, fmt.Errorf("doctor: %w", context.Cause(ctx)))
	}
	code := exitDone
	if doctor.Worst(found) == doctor.Problem {
		code = exitFound
	}
	if *flags.output == outputJSON {
		return finish(s, code, printJSON(s.out, newDoctorOutput(found)))
	}
	return finish(s, code, printFindings(s.out, found))
}

// prepare opens what is to be looked at, each part by itself, and nothing that listens.
func (d *daemon) prepare(p *doctor.Config) {
	ctx := context.Background()
	p.AuditErr = d.openAudit(ctx)
	p.Auditor = d.auditor()
	p.KEKTimeout, p.RotateLag = d.kekTimeout(), rotateLag(d.config)
	p.KEKs = map[string]doctor.Key{}
	for name, c := range d.config.KEKs {
		p.KEKs[name] = d.key(name, c)
	}
	p.Etcd, p.Client, p.EtcdErr = d.etcd()
	if p.AuthKey, p.StoreErr = readAuthKey(d.config.Keyring.AuthKeyFile); p.StoreErr != nil {
		return
	}
	if p.Etcd == nil && d.config.Keyring.Store == config.StoreEtcd {
		p.StoreErr = errors.New("etcd cannot be asked")
		return
	}
	store, err := openStore(d.config, p.Etcd)
	if err != nil {
		p.StoreErr = err
		return
	}
	d.onClose(store.Close)
	p.Store = store
}

// key opens a KEK in a way that makes no key.
func (d *daemon) key(name string, c config.KEK) doctor.Key {
	if c.AzureKeyVault != nil {
		unmanaged := *c.AzureKeyVault
		unmanaged.Managed = false
		c.AzureKeyVault = &unmanaged
	}
	opened, _, err := d.openKEK(name, c)
	if err != nil {
		return doctor.Key{Err: err}
	}
	d.onClose(opened.Close)
	key := doctor.Key{KEK: d.audited(name, opened)}
	if vault, ok := opened.(*azure.KEK); ok {
		key.Vault = vault
	}
	return key
}

// etcd returns what etcd is asked with. A client certificate with a name is no reason not
// to: that is a finding of its own.
func (d *daemon) etcd() (*upstream.Pool, *migrate.Client, error) {
	allowed := *d.config
	allowed.Etcd.AllowClientCN = true
	opener := &daemon{config: &allowed, logger: d.logger}
	if err := opener.openUpstream(context.Background()); err != nil {
		return nil, nil, err
	}
	d.onClose(opener.upstream.Close)
	client, err := migrate.Dial(migrate.DialConfig{Endpoints: d.config.Etcd.Endpoints, Credentials: opener.upstream.Credentials(), Tokens: opener.upstream})
	if err != nil {
		return nil, nil, err
	}
	d.onClose(client.Close)
	return opener.upstream, client, nil
}

// marks show a level at a glance.
var marks = map[doctor.Level]string{doctor.OK: "✓", doctor.Warning: "!", doctor.Problem: "✗", doctor.Unknown: "?"}

// printFindings prints findings, a table for each area.
func printFindings(to io.Writer, found []doctor.Finding) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	area := doctor.Area("")
	for _, f := range found {
		if f.Area != area {
			if err := table.Flush(); err != nil { // columns are an area's own
				return err
			}
			if area != "" {
				fmt.Fprintln(to)
			}
			area = f.Area
			fmt.Fprintln(to, title(area))
		}
		fmt.Fprintf(table, "  %s %s\t%s\t%s\n", marks[f.Level], f.Level, oneLine(f.Subject), oneLine(f.Found))
		if f.Do != "" {
			fmt.Fprintf(table, "\t\tdo: %s\n", oneLine(f.Do))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	counts := count(found)
	_, err := fmt.Fprintf(to, "\ndoctor: %d ok, %d warnings, %d problems, %d unknown\n", counts[doctor.OK], counts[doctor.Warning], counts[doctor.Problem], counts[doctor.Unknown])
	return err
}

// title returns an area as the heading of its table.
func title(area doctor.Area) string {
	if area == doctor.KEKs {
		return "KEKs"
	}
	return strings.ToUpper(string(area[:1])) + string(area[1:])
}

// oneLine puts a text that may have come from elsewhere on one line of a table.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

func count(found []doctor.Finding) map[doctor.Level]int {
	counts := map[doctor.Level]int{}
	for _, f := range found {
		counts[f.Level]++
	}
	return counts
}

// doctorOutput is the JSON of findings.
type doctorOutput struct {
	Findings []doctor.Finding `json:"findings"`
	OK       int              `json:"ok"`
	Warnings int              `json:"warnings"`
	Problems int              `json:"problems"`
	Unknown  int              `json:"unknown"`
}

func newDoctorOutput(found []doctor.Finding) doctorOutput {
	counts := count(found)
	return doctorOutput{found, counts[doctor.OK], counts[doctor.Warning], counts[doctor.Problem], counts[doctor.Unknown]}
}
