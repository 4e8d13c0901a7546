package dek

import (
	"crypto/subtle"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// Auditor writes down what a Manager does with DEKs. What it asks of KEKs is for a
// decorator of those to write down: their calls' contexts say for which DEK they are,
// and why (kek.PurposeOf).
type Auditor interface {
	// Audit writes an event down before its effect. After an error a DEK is not
	// stored, hence not sealed with, and its wrappings stay as they are; a DEK
	// that is to be used less than before (EventDeny, EventDrop, EventRefuse) is
	// used less all the same.
	Audit(Event) error
}

// Event is something that a Manager does with a DEK.
type Event struct {
	Kind    EventKind
	DEK     envelope.ID
	KEK     string    // the KEK's name, if the event is about one
	Version string    // of that KEK
	Why     string    // from a closed set
	Class   kek.Class // what the KEK said, if that is the reason
}

// EventKind says what is done.
type EventKind string

// The kinds of events.
const (
	EventCreate  EventKind = "create"  // the record of a new DEK is stored
	EventRewrap  EventKind = "rewrap"  // the record is stored with another wrapping, by this KEK
	EventRemove  EventKind = "remove"  // the record is stored without a wrapping that it had
	EventRefuse  EventKind = "refuse"  // a KEK unwrapped something else than the DEK
	EventDeny    EventKind = "deny"    // the DEK stops sealing: its KEKs say no, or were silent for too long
	EventRestore EventKind = "restore" // the DEK seals again
	EventDrop    EventKind = "drop"    // the opened DEK is forgotten
	EventBury    EventKind = "bury"    // the record is removed for good, and a tombstone left
	EventImport  EventKind = "import"  // a record is put in, put back, or gets wrappings, from an export
)

// nopAuditor writes nothing.
type nopAuditor struct{}

func (nopAuditor) Audit(Event) error { return nil }

// isDEK reports whether bytes are the DEK of an id. If not, that is written down.
func (w *wrapper) isDEK(dek []byte, h *holder, id envelope.ID, wrapped *Wrapping) bool {
	got := envelope.DeriveID(dek, w.authKey, w.keyring)
	if len(dek) == envelope.KeySize && subtle.ConstantTimeCompare(got[:], id[:]) == 1 {
		return true
	}
	_ = w.auditor.Audit(Event{Kind: EventRefuse, DEK: id, KEK: h.name, Version: wrapped.Version, Why: "mismatch", Class: kek.Corrupt}) // it is refused anyway
	return false
}

// auditRewrap writes down which wrappings a record is about to be stored with, and without.
func (m *Manager) auditRewrap(next *rewrapped) error {
	if err := m.auditWrappings(EventRewrap, next.record, next.added, kek.WhyRotation); err != nil {
		return err
	}
	return m.auditWrappings(EventRemove, next.record, next.dropped, kek.WhyRotation)
}

// auditWrappings writes an event down for each of some wrappings.
func (m *Manager) auditWrappings(kind EventKind, r *Record, list []Wrapping, why kek.Why) error {
	for _, w := range list {
		if err := m.config.Auditor.Audit(Event{Kind: kind, DEK: r.ID, KEK: w.KEK, Version: w.Version, Why: string(why)}); err != nil {
			return err
		}
	}
	return nil
}

// auditCreate writes down that a new DEK's record is about to be stored.
func (m *Manager) auditCreate(e entry) error {
	if e.state != pending {
		return nil
	}
	w := e.record.Wrappings[0]
	return m.config.Auditor.Audit(Event{Kind: EventCreate, DEK: e.id, KEK: w.KEK, Version: w.Version, Why: string(kek.WhyNewDEK)})
}
