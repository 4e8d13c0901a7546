package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/poll"
)

// TestTwoProxies has two proxies in front of one etcd, each of which seals with
// a DEK of its own and opens what the other has written, watches included.
func TestTwoProxies(t *testing.T) {
	l := newLab(t, true)
	var stores []*store
	for i := range 2 {
		cfg := l.proxyConfig(t)
		cfg.Name = fmt.Sprint(i)
		stores = append(stores, newStore(t, l, etcdseal.Start(t, cfg)))
	}
	first, second := stores[0], stores[1]
	watch := second.client.Watch(call(t), etcdseal.SecretsPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch // created: events from here on are seen
	first.putTogether(t, "first", 10)
	for seen := 0; seen < len(first.values); {
		response, open := <-watch
		if err := response.Err(); err != nil || !open {
			t.Fatalf("watching through the second proxy: %v (open: %v) after %d events", err, open, seen)
		}
		for _, event := range response.Events {
			seen++
			if !bytes.Equal(event.Kv.Value, first.values[string(event.Kv.Key)]) {
				t.Errorf("watch through the second proxy: another value of %s", event.Kv.Key)
			}
		}
	}
	second.put(t, "second", 10)
	for key, value := range second.values {
		first.values[key] = value
	}
	first.check(t, first.client)
	first.check(t, second.client)
	first.checkSealed(t)

	ids := map[string]bool{}
	for _, value := range etcd.Pairs(t, l.raw, etcdseal.SecretsPrefix) {
		if id, err := etcd.EnvelopeID(value); err == nil {
			ids[id] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("two proxies sealed with %d DEKs, want one each", len(ids))
	}
	l.checkDEKs(t)
}

// TestRecordsDeleted deletes keyring records in etcd under a running proxy that
// is written to all the while: the proxy must put them back, so that another
// proxy which knows nothing yet opens every value.
func TestRecordsDeleted(t *testing.T) {
	for _, tt := range []struct {
		name string
		args func(active, older string) []string
	}{
		{"the active record", func(active, _ string) []string { return []string{active} }},
		{"an older record", func(_, older string) []string { return []string{older} }},
		{"the whole keyring", func(_, _ string) []string { return []string{"--prefix", etcdseal.KeyringPrefix} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, false)
			proxy := etcdseal.Start(t, l.proxyConfig(t))
			s := newStore(t, l, proxy)
			s.put(t, "older", 5)
			older := etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix)
			proxy.Restart(t)
			s.put(t, "newer", 5)
			s.check(t, s.client)
			before := etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix)
			olderKey, activeKey := recordKeys(t, older, before)

			w := startWriter(t, s, "during")
			poll.Until(t, settleLimit, "the writer to write", func(context.Context) error {
				return atLeast(w.acknowledged(0), 5)
			})
			l.etcd.Ctl(t, append([]string{"del"}, tt.args(activeKey, olderKey)...)...)
			w.enter(1)
			waitRecords(t, l, before)
			poll.Until(t, settleLimit, "the writer to go on", func(context.Context) error {
				return atLeast(w.acknowledged(1), 5)
			})
			w.stop()
			s.collect(t, w, 0, 1)

			s.check(t, s.client)
			cfg := l.proxyConfig(t)
			cfg.Name = "fresh"
			fresh := newStore(t, l, etcdseal.Start(t, cfg))
			s.check(t, fresh.client)
			s.checkSealed(t)
			l.checkDEKs(t)
		})
	}
}

// TestRecordBuried removes the record of the active DEK for good, as a garbage
// collector would: with a tombstone in its place. The proxy must not put it back,
// and must seal with another DEK from then on.
func TestRecordBuried(t *testing.T) {
	l := newLab(t, false)
	s := newStore(t, l, etcdseal.Start(t, l.proxyConfig(t)))
	s.put(t, "before", 3)
	var buried, record string
	for buried, record = range etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix) {
		tombstone := fmt.Sprintf(`{"version":1,"id":%q,"keyring":%q,"buried":"2026-01-01T00:00:00Z"}`, buried, etcdseal.KeyringName)
		_, err := l.raw.Txn(call(t)).Then(clientv3.OpDelete(record),
			clientv3.OpPut(etcdseal.KeyringPrefix+"tombstone/"+buried, tombstone)).Commit()
		if err != nil {
			t.Fatalf("burying record: %v", err)
		}
	}
	poll.Until(t, settleLimit, "another DEK to seal", func(ctx context.Context) error {
		const key = etcdseal.SecretsPrefix + "after"
		value := l.secret(t, "after", 10)
		if err := patientPut(ctx, s.client, key, string(value)); err != nil {
			return poll.Permanent{Err: err}
		}
		s.values[key] = value
		id, err := etcd.EnvelopeID(etcd.Pairs(t, l.raw, key)[key])
		if err == nil && id == buried {
			err = errors.New("the buried DEK does")
		}
		return err
	})
	if keyring := etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix); len(keyring) != 1 || keyring[buried] != "" {
		t.Errorf("keyring is %v, want one record and not that of %s", keyring, buried)
	}
}

// collect takes over what a stopped writer has written in the phases.
func (s *store) collect(t *testing.T, w *writer, phases ...int) {
	t.Helper()
	if w.refused != nil {
		t.Errorf("writer was refused: %v", w.refused)
	}
	for _, phase := range phases {
		for key, value := range w.values[phase] {
			s.values[key] = value
		}
	}
}

// recordKeys returns the key of the one record in older and of the one that
// newer has more.
func recordKeys(t *testing.T, older, newer etcd.Keyring) (olderKey, newerKey string) {
	t.Helper()
	if len(older) != 1 || len(newer) != 2 {
		t.Fatalf("keyring has %d records and then %d, want 1 and then 2: a process makes its own DEK", len(older), len(newer))
	}
	for id, key := range newer {
		if _, old := older[id]; old {
			olderKey = key
		} else {
			newerKey = key
		}
	}
	return olderKey, newerKey
}

// waitRecords waits until etcd has again a record of every DEK in want, under
// the same key.
func waitRecords(t *testing.T, l *lab, want etcd.Keyring) {
	t.Helper()
	poll.Until(t, settleLimit, "the keyring's records to be put back", func(context.Context) error {
		got := etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix)
		for id, key := range want {
			if got[id] != key {
				return fmt.Errorf("the record of DEK %s is not at %s", id, key)
			}
		}
		return nil
	})
}

func atLeast(got, want int) error {
	if got < want {
		return fmt.Errorf("%d so far, want %d", got, want)
	}
	return nil
}
