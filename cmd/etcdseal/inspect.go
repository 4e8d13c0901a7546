package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// maxInspected bounds what is read of a file, in bytes.
const maxInspected = 64 << 20

// inspected says what a value is. It never holds a plaintext.
type inspected struct {
	Kind      string     `json:"kind"` // envelope, record, tombstone, keyring export, plaintext, kubernetes encryption, empty
	Bytes     int        `json:"bytes"`
	DEK       string     `json:"dek,omitempty"`
	Plaintext int        `json:"plaintextBytes,omitempty"`
	Keyring   string     `json:"keyring,omitempty"`
	Created   *time.Time `json:"created,omitempty"`
	SealUntil *time.Time `json:"sealUntil,omitempty"`
	Wrappings []wrapping `json:"wrappings,omitempty"`
	Dropped   []wrapping `json:"dropped,omitempty"` // wrappings that a record had once
	Buried    *time.Time `json:"buried,omitempty"`
	Exported  *time.Time `json:"exported,omitempty"`
	Records   []part     `json:"records,omitempty"` // of an export
	Detail    string     `json:"detail,omitempty"`
	Error     string     `json:"error,omitempty"`
}

type wrapping struct {
	KEK       string     `json:"kek"`
	Version   string     `json:"version"`
	Algorithm string     `json:"algorithm,omitempty"`
	At        *time.Time `json:"at,omitempty"` // when it was made or dropped, if the record says so
}

// part is a record within something larger.
type part struct {
	ID string `json:"id"`
	inspected
}

// inspect carries out `etcdseal inspect`: it says what a stored value is, without any key.
func inspect(ctx context.Context, args []string, s streams) int {
	flags := flag.NewFlagSet("inspect", flag.ContinueOnError)
	file := flags.String("file", "", "read the value from `FILE`; - is standard input")
	cfg := flags.String("config", "", "read the value from the etcd of the configuration in `FILE`")
	key := flags.String("key", "", "with --config: the etcd `KEY`")
	output := flags.String("o", "text", "print the result as `text` or json")
	if status, ok := parseFlags(flags, args, s); !ok {
		return status
	}
	s.asJSON(*output)
	var value []byte
	var err error
	switch {
	case *output != "text" && *output != "json":
		err = fmt.Errorf("-o is %q, want text or json", *output)
	case *file != "" && *cfg == "" && *key == "":
		value, err = readValue(*file, s)
	case *file == "" && *cfg != "" && *key != "":
		value, err = fetchValue(ctx, *cfg, *key, s)
	default:
		err = errors.New("either --file, or --config and --key are needed")
	}
	if err != nil {
		return fail(s, fmt.Errorf("inspect: %w", err))
	}
	return printInspected(s, inspectValue(value), *output)
}

func readValue(file string, s streams) ([]byte, error) {
	from := s.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	value, err := io.ReadAll(io.LimitReader(from, maxInspected+1))
	if err == nil && len(value) > maxInspected {
		err = fmt.Errorf("it has more than %d bytes", maxInspected)
	}
	return value, err
}

func fetchValue(ctx context.Context, cfg, key string, s streams) ([]byte, error) {
	t, err := openKeyless(ctx, cfg, s.err, toolLogger(s.err))
	if err != nil {
		return nil, err
	}
	defer t.close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	answer, err := t.client.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(answer.Kvs) == 0 {
		return nil, fmt.Errorf("etcd has no key %q", key)
	}
	return answer.Kvs[0].Value, nil
}

// inspectValue says what a value is.
func inspectValue(value []byte) inspected {
	in := inspected{Bytes: len(value)}
	switch {
	case len(value) == 0:
		in.Kind = "empty"
	case envelope.Is(value):
		in.Kind = "envelope"
		id, err := envelope.Parse(value)
		if err != nil {
			in.Error = err.Error()
			return in
		}
		in.DEK, in.Plaintext = id.String(), len(value)-envelope.Overhead
	case isObject(value, "wrappings"):
		in.record(value)
	case isObject(value, "buried"):
		in.tombstone(value)
	case isObject(value, "exported"):
		in.export(value)
	case bytes.HasPrefix(value, []byte("k8s:enc:")):
		in.Kind = "kubernetes encryption"
		if parts := strings.SplitN(string(value[:min(len(value), 128)]), ":", 5); len(parts) == 5 { // k8s:enc:PROVIDER:VERSION:...
			in.Detail = parts[2] + " " + parts[3]
		}
	default:
		in.Kind = "plaintext"
	}
	return in
}

// isObject reports whether a value looks like one of etcdseal's JSON objects, by a member
// that no other of them has.
func isObject(value []byte, member string) bool {
	begin := bytes.TrimLeft(value[:min(len(value), 64)], " \t\r\n{")
	return value[0] == '{' && bytes.HasPrefix(begin, []byte(`"version":`)) && bytes.Contains(value, []byte(`"`+member+`":`))
}

func (in *inspected) record(value []byte) {
	in.Kind = "record"
	r, err := dek.ParseRecord(value)
	if err != nil {
		in.Error = err.Error()
		return
	}
	in.DEK, in.Keyring, in.Created, in.SealUntil = r.ID.String(), r.Keyring, &r.Created, &r.SealUntil
	for _, w := range r.Wrappings {
		one := wrapping{KEK: w.KEK, Version: w.Version, Algorithm: w.Algorithm}
		if !w.Wrapped.IsZero() {
			one.At = &w.Wrapped
		}
		in.Wrappings = append(in.Wrappings, one)
	}
	for _, d := range r.Dropped {
		in.Dropped = append(in.Dropped, wrapping{KEK: d.KEK, Version: d.Version, At: &d.At})
	}
}

func (in *inspected) tombstone(value []byte) {
	in.Kind = "tombstone"
	t, err := dek.ParseTombstone(value)
	if err != nil {
		in.Error = err.Error()
		return
	}
	in.DEK, in.Keyring, in.Buried = t.ID.String(), t.Keyring, &t.Buried
}

func (in *inspected) export(value []byte) {
	in.Kind = "keyring export"
	e, err := dek.ParseExport(value)
	if err != nil {
		in.Error = err.Error()
		return
	}
	in.Keyring, in.Exported = e.Keyring, &e.Exported
	in.Detail = fmt.Sprintf("revision %d, %d tombstones", e.Revision, len(e.Tombstones))
	for _, r := range e.Records {
		one := part{ID: r.ID.String(), inspected: inspected{Bytes: len(r.Data)}}
		one.record(r.Data)
		if one.Error != "" {
			in.Error = "a record in it cannot be read"
		}
		in.Records = append(in.Records, one)
	}
}

// printInspected prints it and returns the exit status.
func printInspected(s streams, in inspected, output string) int {
	status := exitDone
	if in.Error != "" {
		status = exitFound
	}
	if output == "json" {
		return finish(s, status, printJSON(s.out, in))
	}
	_, err := io.WriteString(s.out, in.text())
	return finish(s, status, err)
}

// text returns it as lines for people.
func (in inspected) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d bytes\n", in.Kind, in.Bytes)
	if in.DEK != "" {
		fmt.Fprintf(&b, "  DEK        %s\n", in.DEK)
	}
	if in.Kind == "envelope" && in.Error == "" {
		fmt.Fprintf(&b, "  plaintext  %d bytes\n", in.Plaintext)
	}
	if in.Keyring != "" {
		fmt.Fprintf(&b, "  keyring    %s\n", shown(in.Keyring))
	}
	for _, at := range []struct {
		name string
		time *time.Time
	}{{"created", in.Created}, {"sealUntil", in.SealUntil}, {"buried", in.Buried}, {"exported", in.Exported}} {
		if at.time != nil {
			fmt.Fprintf(&b, "  %-9s  %s\n", at.name, at.time.Format(time.RFC3339))
		}
	}
	for _, w := range in.Wrappings {
		fmt.Fprintf(&b, "  wrapping   KEK %q version %q, %s\n", w.KEK, w.Version, shown(w.Algorithm))
	}
	for _, w := range in.Dropped {
		fmt.Fprintf(&b, "  dropped    KEK %q version %q, %s\n", w.KEK, w.Version, w.At.Format(time.RFC3339))
	}
	if in.Detail != "" {
		fmt.Fprintf(&b, "  detail     %q\n", in.Detail)
	}
	for _, r := range in.Records {
		fmt.Fprintf(&b, "  record     %s, %d bytes%s\n", r.ID, r.Bytes, wrong(r.Error))
	}
	if in.Error != "" {
		fmt.Fprintf(&b, "  wrong      %s\n", in.Error)
	}
	return b.String()
}

func wrong(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
