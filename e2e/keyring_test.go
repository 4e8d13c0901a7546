package e2e

import (
	"bytes"
	"context"
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
	first.put(t, "first", 10)
	for seen := 0; seen < len(first.values); {
		response := <-watch
		if err := response.Err(); err != nil {
			t.Fatalf("watching through the second proxy: %v", err)
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

// TestSnapshotRestored restores etcd, under a running proxy that is written to,
// from a snapshot that is older than the record of the proxy's active DEK. What
// the snapshot holds must be readable, and no value may be sealed, at any
// revision since, under a DEK that this etcd has no record of.
func TestSnapshotRestored(t *testing.T) {
	const bump = 1_000_000
	for _, tt := range []struct {
		name string
		// bump is by how much the restored revision was raised.
		bump int64
		args []string
	}{
		{"the same cluster, a fallen revision", 0, nil},
		{"another cluster, a raised revision", bump, []string{
			"--initial-cluster-token=another", fmt.Sprintf("--bump-revision=%d", bump), "--mark-compacted",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, true)
			proxy := etcdseal.Start(t, l.proxyConfig(t))
			s := newStore(t, l, proxy)
			s.put(t, "older", 10)
			older := etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix)
			proxy.Restart(t)
			snapshot := l.etcd.SaveSnapshot(t)
			last := revision(t, l.raw)

			lost := newStore(t, l, proxy)
			lost.put(t, "lost", 10)
			before := etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix)
			recordKeys(t, older, before)
			w := startWriter(t, s, "during")
			poll.Until(t, settleLimit, "the writer to write", func(context.Context) error {
				return atLeast(w.acknowledged(0), 5)
			})
			l.etcd.Restore(t, snapshot, tt.args...)
			w.enter(1)
			poll.Until(t, settleLimit, "the writer to go on", func(context.Context) error {
				return atLeast(w.acknowledged(1), 20)
			})
			w.stop()
			waitRecords(t, l, before)

			cfg := l.proxyConfig(t)
			cfg.Name = "fresh"
			fresh := newStore(t, l, etcdseal.Start(t, cfg))
			for _, client := range []*clientv3.Client{s.client, fresh.client} {
				s.checkRestored(t, client, w)
			}
			l.checkDEKs(t)
			envelopes, err := etcd.CheckHistory(t, l.raw, etcdseal.KeyringPrefix, last+tt.bump+1)
			if err != nil {
				t.Errorf("history since the snapshot: %v", err)
			}
			if envelopes < 20 {
				t.Errorf("history since the snapshot has %d envelopes, want at least 20", envelopes)
			}
		})
	}
}

// checkRestored demands what the snapshot held and what was acknowledged after
// it was restored.
func (s *store) checkRestored(t *testing.T, client *clientv3.Client, w *writer) {
	t.Helper()
	for _, values := range []map[string][]byte{s.values, w.values[1]} {
		for key, want := range values {
			response, err := client.Get(call(t), key)
			if err != nil || len(response.Kvs) != 1 || !bytes.Equal(response.Kvs[0].Value, want) {
				t.Errorf("getting %s after the restore: %v (or another value)", key, err)
			}
		}
	}
	if w.refused != nil {
		t.Errorf("writer was refused: %v", w.refused)
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
	// The put that stop cut off may have happened.
	for key := range etcd.Pairs(t, s.lab.raw, etcdseal.SecretsPrefix) {
		if _, known := s.values[key]; !known {
			response, err := s.client.Get(call(t), key)
			if err != nil || len(response.Kvs) != 1 {
				t.Errorf("getting %s: %v", key, err)
				continue
			}
			s.values[key] = response.Kvs[0].Value
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

// revision is etcd's revision now.
func revision(t *testing.T, client *clientv3.Client) int64 {
	t.Helper()
	response, err := client.Get(call(t), "none")
	if err != nil {
		t.Fatalf("reading etcd's revision: %v", err)
	}
	return response.Header.Revision
}
