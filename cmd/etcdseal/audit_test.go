package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// TestAuditOnStdout covers audit.stdout, and each member of an event's line.
func TestAuditOnStdout(t *testing.T) {
	var out bytes.Buffer
	d := &daemon{config: &config.Config{Audit: config.Audit{Stdout: true}}, stdout: &out, logger: slog.New(slog.DiscardHandler)}
	if err := d.openAudit(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	event := dek.Event{Kind: dek.EventDeny, DEK: envelope.ID{1, 2}, KEK: "prod", Version: "7", Why: "health check", Class: kek.Disabled}
	if err := d.auditor().Audit(event); err != nil {
		t.Fatal(err)
	}
	want := `","op":"deny","why":"health check","kek":"prod","keyID":"7","dek":"01020000000000000000000000000000","result":"disabled"}` + "\n"
	if got := out.String(); !strings.HasPrefix(got, `{"time":"`) || !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want {\"time\":\"...%s", got, want)
	}
}

// TestNoAudit covers a configuration without an audit log.
func TestNoAudit(t *testing.T) {
	d := &daemon{config: &config.Config{}}
	if err := d.openAudit(t.Context()); err != nil || d.auditor() != nil {
		t.Errorf("got an auditor %v, %v, want none", d.auditor(), err)
	}
	d.reopenAudit()
}
