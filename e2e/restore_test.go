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

// enough is how many values a writer must get through before and after.
const enough = 20

// TestSnapshotRestored restores etcd, under a running proxy, from a snapshot that
// is older than the record of the proxy's active DEK. What the snapshot holds
// must be readable, and no value may be sealed, at any revision since, under a
// DEK that this etcd has no record of.
func TestSnapshotRestored(t *testing.T) {
	const bump = 1_000_000
	raised := []string{"--initial-cluster-token=another", fmt.Sprintf("--bump-revision=%d", bump), "--mark-compacted"}
	for _, tt := range []struct {
		name string
		// bump is by how much the restored revision was raised.
		bump int64
		args []string
		// idle keeps the client from writing until etcd is back.
		idle bool
	}{
		{"the same cluster, a fallen revision", 0, nil, false},
		{"the same cluster, after a pause", 0, nil, true},
		{"another cluster, a raised revision", bump, raised, false},
		{"another cluster, after a pause", bump, raised, true},
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
			restore := func() { l.etcd.Restore(t, snapshot, tt.args...) }
			s.writeOver(t, restore, tt.idle)
			waitRecords(t, l, before)
			s.checkRestored(t, last+tt.bump+1)
		})
	}
}

// TestEtcdEmptied takes away everything that etcd holds, keyring included.
func TestEtcdEmptied(t *testing.T) {
	l := newLab(t, true)
	snapshot := l.etcd.SaveSnapshot(t)
	proxy := etcdseal.Start(t, l.proxyConfig(t))
	s, lost := newStore(t, l, proxy), newStore(t, l, proxy)
	lost.put(t, "lost", 10)
	s.writeOver(t, func() { l.etcd.Restore(t, snapshot) }, false)
	s.checkRestored(t, firstRevision)
}

// writeOver runs restore while a writer writes, or before it does, and takes
// over what was acknowledged afterwards.
func (s *store) writeOver(t *testing.T, restore func(), idle bool) {
	t.Helper()
	if idle {
		restore()
	}
	w := startWriter(t, s, "during")
	if !idle {
		poll.Until(t, settleLimit, "the writer to write", func(context.Context) error {
			return atLeast(w.acknowledged(0), enough)
		})
		restore()
	}
	w.enter(1)
	poll.Until(t, settleLimit, "the writer to go on", func(context.Context) error {
		return atLeast(w.acknowledged(1), enough)
	})
	w.stop()
	if w.refused != nil {
		t.Errorf("writer was refused: %v", w.refused)
	}
	for key, value := range w.values[1] {
		s.values[key] = value
	}
}

// checkRestored demands that what the store knows is readable, through the old
// proxy and a new one, and that history is sound from revision first on.
func (s *store) checkRestored(t *testing.T, first int64) {
	t.Helper()
	cfg := s.lab.proxyConfig(t)
	cfg.Name = "fresh"
	fresh := newStore(t, s.lab, etcdseal.Start(t, cfg))
	for _, client := range []*clientv3.Client{s.client, fresh.client} {
		for key, want := range s.values {
			response, err := client.Get(call(t), key)
			if err != nil || len(response.Kvs) != 1 || !bytes.Equal(response.Kvs[0].Value, want) {
				t.Errorf("getting %s after the restore: %v (or another value)", key, err)
			}
		}
	}
	s.lab.checkDEKs(t)
	envelopes, err := etcd.CheckHistory(t, s.lab.raw, etcdseal.KeyringPrefix, first)
	if err != nil {
		t.Errorf("history since the restore: %v", err)
	}
	if envelopes < enough {
		t.Errorf("history since the restore has %d envelopes, want at least %d", envelopes, enough)
	}
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
