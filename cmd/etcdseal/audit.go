package main

import (
	"context"

	"github.com/etcdseal/etcdseal/audit"
	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
)

// openAudit opens the audit log if there is to be one.
func (d *daemon) openAudit(context.Context) (err error) {
	c := d.config.Audit
	settings := audit.Config{File: c.File, Continue: c.OnFailure == config.AuditContinue, Logger: d.logger}
	switch {
	case c.Stdout:
		settings.Output = d.stdout
	case c.File == "":
		return nil
	}
	if d.audit, err = audit.Open(settings); err != nil {
		return err
	}
	d.onClose(d.audit.Close)
	return nil
}

// audited returns a KEK whose uses are written down, if they are to be.
func (d *daemon) audited(name string, k kek.KEK) kek.KEK {
	if d.audit == nil {
		return k
	}
	return d.audit.KEK(name, k)
}

// auditor returns what writes down the keyring's events, nil if nothing is to be.
func (d *daemon) auditor() dek.Auditor {
	if d.audit == nil {
		return nil
	}
	return auditor{d.audit}
}

// auditor writes the keyring's events to the audit log.
type auditor struct{ log *audit.Log }

// Audit implements dek.Auditor.
func (a auditor) Audit(e dek.Event) error {
	return a.log.Write(audit.Line{
		Op: string(e.Kind), Why: e.Why, KEK: e.KEK, KeyID: a.log.KeyID(e.KEK, e.Version), DEK: e.DEK.String(), Result: e.Class.String(),
	})
}

// reopenAudit opens the audit file by its name, after somebody moved the old one away.
func (d *daemon) reopenAudit() {
	if d.audit == nil {
		return
	}
	if err := d.audit.Reopen(); err != nil {
		d.logger.Error("the audit file was not opened anew, the old one stays", "error", err.Error())
	}
}
