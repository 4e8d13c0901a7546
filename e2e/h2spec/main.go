// Command h2spec runs every case of h2spec (generic, HTTP/2 and HPACK, the
// strict ones too) against a server on loopback and prints a JSON line for each.
//
// It is a program of its own because h2spec's writes colours to standard output
// and shows no client certificate, and because its library ends the process
// when a connection is refused. Exit status 0 says that all cases ran, whatever
// came of them.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// result is one case.
type result struct {
	ID      string  `json:"id"` // as h2spec's command line takes it
	Text    string  `json:"text"`
	Skipped bool    `json:"skipped,omitempty"`
	Error   string  `json:"error,omitempty"` // what was expected and what came
	Seconds float64 `json:"seconds"`
}

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	cert := flag.String("cert", "", "client certificate; with it the server is spoken to over TLS")
	key := flag.String("key", "", "its key")
	timeout := flag.Duration("timeout", 20*time.Second, "longest wait for an answer")
	out := flag.String("out", "", "file for the results")
	flag.Parse()
	c := &config.Config{
		Host: "127.0.0.1", Port: *port, Path: "/", Timeout: *timeout, MaxHeaderLen: 4000, Strict: true,
		TLS: *cert != "", Insecure: true, CertFile: *cert, CertKeyFile: *key, Sections: flag.Args(),
	}
	if err := run(c, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(c *config.Config, out string) error {
	file, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("making file of results: %w", err)
	}
	encoder := json.NewEncoder(file)
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		if err := write(encoder, group); err != nil {
			return fmt.Errorf("writing results: %w", err)
		}
	}
	return file.Close()
}

// write prints the results of a group and of all groups in it.
func write(encoder *json.Encoder, group *spec.TestGroup) error {
	for _, test := range append(group.Tests, group.StrictTests...) {
		r := test.Result
		if r == nil {
			continue
		}
		line := result{
			ID: fmt.Sprintf("%s/%d", group.ID(), r.Sequence), Text: group.Title() + ": " + test.Desc,
			Skipped: r.Skipped, Seconds: r.Duration.Seconds(),
		}
		if r.Failed {
			line.Error = fmt.Sprintf("%s: %v", test.Requirement, r.Error)
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	for _, g := range group.Groups {
		if err := write(encoder, g); err != nil {
			return err
		}
	}
	return nil
}
