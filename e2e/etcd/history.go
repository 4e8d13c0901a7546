package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// CheckDEKs looks at everything that etcd holds now, as of one revision. It
// returns the number of envelopes, and an error for each whose DEK has no
// record under the keyring's prefix.
func CheckDEKs(t testing.TB, client *clientv3.Client, keyringPrefix string) (envelopes int, err error) {
	t.Helper()
	pairs := Pairs(t, client, "")
	state := newReplay(keyringPrefix)
	for key, value := range pairs {
		state.record(key, value)
	}
	for key, value := range pairs {
		state.value(key, value, 0)
	}
	return state.envelopes, errors.Join(state.findings...)
}

// CheckHistory replays the store from revision first to now. It returns the
// number of envelopes put, and an error for each at whose revision the record
// of its DEK was not in etcd. The revision before first must not be compacted.
// It puts a key of its own.
func CheckHistory(t testing.TB, client *clientv3.Client, keyringPrefix string, first int64) (envelopes int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	before, err := client.Get(ctx, keyringPrefix, clientv3.WithPrefix(), clientv3.WithRev(first-1))
	if err != nil {
		t.Fatalf("reading keyring at revision %d: %v", first-1, err)
	}
	state := newReplay(keyringPrefix)
	for _, kv := range before.Kvs {
		state.record(string(kv.Key), kv.Value)
	}
	// The watch has delivered everything once it delivers this put.
	last, err := client.Put(ctx, "end of history", "")
	if err != nil {
		t.Fatalf("marking the end of etcd's history: %v", err)
	}
	for response := range client.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(first)) {
		if err := response.Err(); err != nil {
			t.Fatalf("replaying etcd's history: %v", err)
		}
		for _, event := range response.Events {
			key := string(event.Kv.Key)
			state.record(key, event.Kv.Value)
			state.value(key, event.Kv.Value, event.Kv.ModRevision)
			if event.Kv.ModRevision == last.Header.Revision {
				return state.envelopes, errors.Join(state.findings...)
			}
		}
	}
	t.Fatalf("replaying etcd's history: the watch ended before revision %d", last.Header.Revision)
	return 0, nil
}

// replay is the keyring while the store is read in order, and what was found.
type replay struct {
	prefix    string
	records   map[string]string // DEK id by the record's key
	envelopes int
	findings  []error
}

func newReplay(prefix string) *replay {
	return &replay{prefix: prefix, records: map[string]string{}}
}

// record takes note of what is stored now under key, if it is of the keyring.
// A deleted key comes with a nil value.
func (r *replay) record(key string, value []byte) {
	if !strings.HasPrefix(key, r.prefix) {
		return
	}
	delete(r.records, key)
	if id, ok := recordID(value); ok {
		r.records[key] = id
	}
}

// value checks a value outside the keyring against the records of this moment.
func (r *replay) value(key string, value []byte, revision int64) {
	if strings.HasPrefix(key, r.prefix) || !IsEnvelope(value) {
		return
	}
	r.envelopes++
	id, err := EnvelopeID(value)
	if err != nil {
		r.findings = append(r.findings, fmt.Errorf("value of %s at revision %d: %w", key, revision, err))
		return
	}
	for _, recorded := range r.records {
		if recorded == id {
			return
		}
	}
	r.findings = append(r.findings,
		fmt.Errorf("value of %s at revision %d: DEK %s has no record in etcd", key, revision, id))
}
