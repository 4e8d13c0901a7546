package dek

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// ImportOptions say what Import does beside healing.
type ImportOptions struct {
	// Undo are DEKs whose records were removed for good and are put back all the
	// same, tombstones or not.
	Undo []envelope.ID
	// DryRun changes nothing: what would be done is reported as if it were.
	DryRun bool
}

// ImportAction is what became of one record of an export.
type ImportAction string

// The actions.
const (
	ImportSame    ImportAction = "same"    // the keyring has it, byte for byte
	ImportKept    ImportAction = "kept"    // the keyring has another one, which gives the DEK
	ImportCreated ImportAction = "created" // it was missing
	ImportMerged  ImportAction = "merged"  // its wrappings were put beside those there, which do not give the DEK
	ImportExhumed ImportAction = "exhumed" // it was put back in the place of its tombstone
	ImportRefused ImportAction = "refused" // see Err
)

// Imported is what became of one record.
type Imported struct {
	ID     envelope.ID
	Action ImportAction
	Err    error // why it was refused
}

// Errors of Import, to be told apart with errors.Is.
var (
	// ErrAnotherKeyring says that an export is of another keyring.
	ErrAnotherKeyring = errors.New("the export is of another keyring")
	// ErrNotExported says that a DEK that is to be put back is not in the export.
	ErrNotExported = errors.New("the export has no record of it")
	// ErrNoBurials says that a store has no tombstones, so that there is nothing to
	// undo.
	ErrNoBurials = errors.New("the keyring's store never removes records for good")

	errNoRecordThere = errors.New("what the keyring has in its place is no record, and is not overwritten: keep a copy of it, remove that key, and import again")
	errNothingNew    = errors.New("the record in the keyring does not give the DEK, and this one has no other wrappings")
	errNoRoom        = errors.New("the record in the keyring does not give the DEK, and has no room for another wrapping")
)

// Import puts the records of an export into the keyring where they are missing. No record
// is put in before one of its wrappings was unwrapped here and gave the DEK of its id: a
// record that is not good would keep the one that is from being put back, and nobody could
// tell. A record that is in the keyring is never overwritten: if it gives the DEK it stays
// as it is, since rotations may have changed it; if it does not, wrappings of the export that
// do are put beside its own. Every write compares what is there, and is written down first.
//
// A record with a tombstone is refused, unless Undo names it. The result has all records of
// the export, ordered by id. The error says that nothing was begun, or with a result that
// ctx ended in between.
func (m *Manager) Import(ctx context.Context, e *Export, o ImportOptions) ([]Imported, error) {
	if e.Keyring != m.config.Keyring {
		return nil, fmt.Errorf("importing: %w: %.64q, this one is %q", ErrAnotherKeyring, e.Keyring, m.config.Keyring)
	}
	if _, ok := m.store.(Burier); !ok && len(o.Undo) > 0 {
		return nil, fmt.Errorf("importing: %w", ErrNoBurials)
	}
	for _, id := range o.Undo {
		if !slices.ContainsFunc(e.Records, func(r Stored) bool { return r.ID == id }) {
			return nil, fmt.Errorf("importing DEK %s: %w", id, ErrNotExported)
		}
	}
	ctx = kek.WithWhy(ctx, kek.WhyImport)
	var out []Imported
	for _, r := range e.Records {
		if ctx.Err() != nil {
			return out, fmt.Errorf("importing: %w", ctx.Err())
		}
		action, err := m.importOne(ctx, r, o)
		if err != nil {
			action = ImportRefused
		}
		out = append(out, Imported{ID: r.ID, Action: action, Err: err})
	}
	return out, nil
}

// importOne does what is to be done about one record. It begins again when what is there
// changed meanwhile.
func (m *Manager) importOne(ctx context.Context, r Stored, o ImportOptions) (action ImportAction, err error) {
	record, err := m.check(r)
	if err != nil {
		return ImportRefused, err
	}
	for range maxSettleTries {
		var there Stored
		there, err = m.readStored(ctx, r.ID)
		switch {
		case err == nil && bytes.Equal(there.Data, r.Data):
			return ImportSame, nil
		case err == nil:
			action, err = m.importBeside(ctx, record, there, o)
		case errors.Is(err, ErrNotFound):
			action, err = ImportCreated, m.importMissing(ctx, r, record, o)
		case errors.Is(err, ErrTombstoned) && slices.Contains(o.Undo, r.ID):
			action, err = ImportExhumed, m.importBuried(ctx, r, record, o)
		default:
			return ImportRefused, err
		}
		if !errors.Is(err, ErrExists) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			return action, err
		}
	}
	return ImportRefused, err
}

func (m *Manager) readStored(ctx context.Context, id envelope.ID) (Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	stored, err := m.store.Get(ctx, id)
	return stored, timedOut(err)
}

// importMissing stores a record where there is none.
func (m *Manager) importMissing(ctx context.Context, r Stored, record *Record, o ImportOptions) error {
	return m.importing(ctx, record, "missing", o, func(ctx context.Context) error {
		_, err := m.store.Create(ctx, r.ID, r.Data)
		return err
	})
}

// importBuried puts a record in the place of its tombstone.
func (m *Manager) importBuried(ctx context.Context, r Stored, record *Record, o ImportOptions) error {
	return m.importing(ctx, record, "undo gc", o, func(ctx context.Context) error {
		_, err := m.store.(Burier).Exhume(ctx, r.ID, r.Data)
		return err
	})
}

// importing proves a record, writes down that it is put in, and does it.
func (m *Manager) importing(ctx context.Context, record *Record, why string, o ImportOptions, write func(context.Context) error) error {
	_, wrapped, err := m.wraps.open(ctx, record)
	if err != nil {
		return fmt.Errorf("it was not put in unproved: %w", err)
	}
	if o.DryRun {
		return nil
	}
	if err := m.config.Auditor.Audit(Event{Kind: EventImport, DEK: record.ID, KEK: wrapped.KEK, Version: wrapped.Version, Why: why}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.StoreTimeout)
	defer cancel()
	return timedOut(write(ctx))
}

// importBeside looks at a record that is in the keyring and differs.
func (m *Manager) importBeside(ctx context.Context, record *Record, there Stored, o ImportOptions) (ImportAction, error) {
	known, err := m.check(there)
	if err != nil {
		if newer, ok := errors.AsType[*RecordVersionError](err); ok {
			return ImportRefused, newer
		}
		return ImportRefused, fmt.Errorf("%w (%w)", errNoRecordThere, err)
	}
	switch _, _, err := m.wraps.open(ctx, known); {
	case err == nil:
		return ImportKept, nil
	case passing(err):
		return ImportRefused, fmt.Errorf("whether the record in the keyring gives the DEK is unknown: %w", err)
	}
	proved, err := m.proven(ctx, missing(known, record), record)
	if len(proved) == 0 {
		return ImportRefused, err
	}
	merged := *known
	merged.Wrappings = slices.Concat(proved, known.Wrappings)
	data, err := merged.Marshal()
	if err != nil {
		return ImportRefused, fmt.Errorf("%w: %w", errNoRoom, err)
	}
	return ImportMerged, m.importing(ctx, &merged, "merge", o, func(ctx context.Context) error {
		_, err := m.store.Update(ctx, there.ID, data, there.Revision)
		return err
	})
}

// proven returns those of wrappings that give the DEK of a record, and why there are none.
func (m *Manager) proven(ctx context.Context, wrappings []Wrapping, r *Record) (good []Wrapping, err error) {
	errs := []error{}
	for _, w := range wrappings {
		one := *r
		one.Wrappings = []Wrapping{w}
		if _, _, err := m.wraps.open(ctx, &one); err != nil {
			errs = append(errs, err)
			continue
		}
		good = append(good, w)
	}
	if len(errs) == 0 {
		return good, errNothingNew
	}
	return good, fmt.Errorf("neither the record in the keyring nor this one gives the DEK: %w", joinKEKErrors(errs))
}
