package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// maxOpened is how many data keys are unwrapped, which costs a key operation each.
const maxOpened = 5

// maxNamed is how many data keys a finding names.
const maxNamed = 5

// keyring looks at the records, and at those of the data keys that values were found to
// be sealed with.
func (d *doctor) keyring(ctx context.Context, n *notes, used map[envelope.ID]string) {
	c := d.Config.Config
	if d.StoreErr != nil {
		n.add(Keyring, Problem, c.Keyring.Name, "mend what is named", "cannot be opened, so that etcdseal does not start: %v", d.StoreErr)
		return
	}
	if c.Keyring.Store == config.StoreEtcd && !d.askable(n, Keyring, c.Keyring.Name) {
		return
	}
	store := readOnly{d.Store}
	bounded, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	all, err := store.List(bounded)
	if err != nil {
		n.add(Keyring, d.unread(err), c.Keyring.Name, "see what the store says", "cannot be read: %v", err)
		return
	}
	records := d.records(n, all, used)
	m, err := d.manager(store)
	if err != nil {
		n.add(Keyring, Problem, c.Keyring.Name, "mend what is named", "cannot be used: %v", err)
		return
	}
	defer m.Close()
	d.wrappings(ctx, n, m)
	d.opening(ctx, n, m, records, used)
}

func (d *doctor) unread(err error) Level {
	if errors.Is(err, dek.ErrStoreUnavailable) {
		return Unknown
	}
	return Problem
}

// readOnly is a store that nothing is written to.
type readOnly struct{ dek.Store }

var errReadOnly = errors.New("nothing is written here")

// Create implements dek.Store.
func (readOnly) Create(context.Context, envelope.ID, []byte) (int64, error) { return 0, errReadOnly }

// Update implements dek.Store.
func (readOnly) Update(context.Context, envelope.ID, []byte, int64) (int64, error) {
	return 0, errReadOnly
}

// manager makes a keyring of what is there. It does not run.
func (d *doctor) manager(store dek.Store) (*dek.Manager, error) {
	c := d.Config.Config
	keks := map[string]kek.KEK{}
	for name, k := range d.KEKs {
		keks[name] = k.KEK
		if err := d.silent[name]; err != nil {
			keks[name] = absent{name, err}
		}
	}
	m, err := dek.New(dek.Config{
		Store: store, Keyring: c.Keyring.Name, AuthKey: d.AuthKey, KEKs: keks, Auditor: d.Auditor,
		KEKTimeout: d.KEKTimeout, StoreTimeout: d.Timeout, RotateLag: d.RotateLag, Now: d.Now,
	})
	if err != nil {
		return nil, err
	}
	var sets []dek.Set
	for _, r := range c.Rules {
		sets = append(sets, dek.Set{KEK: r.KEK, Recovery: r.RecoveryKEKs})
	}
	return m, m.WrapBy(sets...)
}

// records looks at the records by themselves, and returns those of this keyring.
func (d *doctor) records(n *notes, all dek.Change, used map[envelope.ID]string) map[envelope.ID]*dek.Record {
	name := d.Config.Config.Keyring.Name
	good := map[envelope.ID]*dek.Record{}
	others := map[string][]envelope.ID{}
	var bad []envelope.ID
	there := map[envelope.ID]bool{}
	for _, stored := range all.Records {
		there[stored.ID] = true
		r, err := dek.ParseRecord(stored.Data)
		switch {
		case err != nil || r.ID != stored.ID:
			bad = append(bad, stored.ID)
		case r.Keyring != name:
			others[r.Keyring] = append(others[r.Keyring], r.ID)
		default:
			good[r.ID] = r
		}
	}
	for _, other := range slices.Sorted(maps.Keys(others)) {
		n.add(Keyring, Problem, name, "give each cluster's keyring a prefix of its own, and never change keyring.name", "%s of another keyring, %q, under the same prefix: keyring.name was changed, or two clusters share it", areRecords(len(others[other])), other)
	}
	if len(bad) > 0 {
		n.add(Keyring, Problem, name, "put them back from a backup; never delete them", "%s not to be read: %s", areRecords(len(bad)), list(bad))
	}
	var lost []envelope.ID
	for id := range used {
		if !there[id] {
			lost = append(lost, id)
		}
	}
	if len(lost) > 0 {
		slices.SortFunc(lost, byName)
		n.add(Keyring, Problem, name, "put the records back from a snapshot of etcd; or is keyring.prefix not what it was?", "values are sealed with data keys without a record, so that they cannot be opened: %s (%s, for one)", list(lost), used[lost[0]])
	}
	do := ""
	if len(good) == 0 && len(d.AuthKey) == 0 {
		do = "set keyring.authKeyFile now, if whoever can write to etcd is not to be able to make a data key that is accepted: later it cannot be changed"
	}
	n.add(Keyring, OK, name, do, "%s of this keyring", areRecords(len(good)))
	return good
}

func areRecords(n int) string {
	if n == 1 {
		return "1 record is"
	}
	return fmt.Sprintf("%d records are", n)
}

func byName(a, b envelope.ID) int { return strings.Compare(a.String(), b.String()) }

// list names some data keys.
func list(ids []envelope.ID) string {
	var names []string
	for _, id := range ids[:min(len(ids), maxNamed)] {
		names = append(names, id.String())
	}
	if len(ids) > maxNamed {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

// wrappings looks at what the records are wrapped by.
func (d *doctor) wrappings(ctx context.Context, n *notes, m *dek.Manager) {
	name := d.Config.Config.Keyring.Name
	status, err := m.Status(ctx)
	if err != nil {
		n.add(Keyring, d.unread(err), name, "see what the store says", "cannot be read: %v", err)
		return
	}
	missing := map[string]int{}
	for _, miss := range status.Missing {
		missing[miss.KEK]++
	}
	for _, by := range slices.Sorted(maps.Keys(missing)) {
		n.add(Keyring, Warning, name, "run `etcdseal rotate`; running proxies do it, too", "%s not wrapped by KEK %s, which their rules name", areRecords(missing[by]), by)
	}
	if len(status.Unreadable) > 0 {
		n.add(Keyring, Problem, name, "put the KEKs that wrapped them back under keks (`etcdseal status` names them)", "%s wrapped by no KEK of this configuration: %s", areRecords(len(status.Unreadable)), list(status.Unreadable))
	}
	if len(status.Unopened) > 0 {
		n.add(Keyring, Problem, name, "put back the key that they were wrapped by (`etcdseal status` names them and says why)", "%s opened by no KEK of this configuration", areRecords(len(status.Unopened)))
	}
	if len(status.Missing)+len(status.Unreadable)+len(status.Unopened) == 0 && status.Records > 0 {
		n.add(Keyring, OK, name, "", "all are wrapped by the KEKs that their rules name")
	}
}

// opening has the KEKs unwrap some data keys: those that values were found under first,
// then the newest.
func (d *doctor) opening(ctx context.Context, n *notes, m *dek.Manager, records map[envelope.ID]*dek.Record, used map[envelope.ID]string) {
	ids := slices.Collect(maps.Keys(records))
	slices.SortFunc(ids, func(a, b envelope.ID) int {
		_, usedA := used[a]
		_, usedB := used[b]
		if usedA != usedB {
			return map[bool]int{true: -1, false: 1}[usedA]
		}
		if c := records[b].Created.Compare(records[a].Created); c != 0 {
			return c
		}
		return byName(a, b)
	})
	ids = ids[:min(len(ids), maxOpened)]
	name, opened := d.Config.Config.Keyring.Name, 0
	began := d.Now()
	for _, id := range ids {
		bounded, cancel := context.WithTimeout(ctx, d.KEKTimeout)
		_, err := m.OpenKey(bounded, id)
		cancel()
		if err == nil {
			opened++
			continue
		}
		level, do := Problem, "see the KEKs above"
		switch class := kek.ClassOf(err); {
		case errors.Is(err, dek.ErrMismatch):
			do = "see that keyring.authKeyFile is the one that the data keys were made with; else somebody changed the record: put it back from a backup"
		case class == kek.Unavailable || class == kek.Throttled:
			level = Unknown
		case class == kek.Corrupt:
			do = "is it another key under the same name? Put the old one back under keks, or the record from a backup"
		}
		n.add(Keyring, level, name, do, "%v", err)
		if d.Now().Sub(began) > d.KEKTimeout {
			break // the others would take as long
		}
	}
	if opened > 0 {
		n.add(Keyring, OK, name, "", "%d of %s unwrapped, and gave what the records promise (%s)", opened, plural(int64(len(records)), "data key"), d.Now().Sub(began).Round(time.Millisecond))
	}
}
