package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
)

// Positions in an envelope, from docs/FORMAT.md.
const (
	versionAt    = 3
	idAt         = 4
	nonceAt      = 20
	ciphertextAt = 32
)

// badEnvelope is a stored value that no proxy can open.
type badEnvelope struct {
	name string
	// make makes it from the key's own envelope, another key's, and one of the
	// same key under another DEK.
	make  func(own, otherKey, otherDEK []byte) []byte
	codes []codes.Code // any of them
	// says must be in the error's text; it may depend on the bad value.
	says func(bad []byte) string
}

func badEnvelopes() []badEnvelope {
	nothing := func([]byte) string { return "" }
	lost := []codes.Code{codes.DataLoss}
	// What a newer proxy, or a record put back, may cure has no code of its own
	// in the design; it must be one that clients do not try again for ever.
	permanent := []codes.Code{codes.DataLoss, codes.FailedPrecondition}
	keep := func(n int) func(own, _, _ []byte) []byte {
		return func(own, _, _ []byte) []byte { return own[:n] }
	}
	flip := func(at int) func(own, _, _ []byte) []byte {
		return func(own, _, _ []byte) []byte {
			if at < 0 {
				at += len(own)
			}
			own[at] ^= 0x01
			return own
		}
	}
	return []badEnvelope{
		{"truncated after the magic", keep(3), lost, nothing},
		{"truncated in the id", keep(10), lost, nothing},
		{"truncated in the nonce", keep(24), lost, nothing},
		{"truncated before the tag's end", keep(47), lost, nothing},
		{"truncated in the ciphertext", keep(60), lost, nothing},
		{"flipped in the nonce", flip(nonceAt), lost, nothing},
		{"flipped in the ciphertext", flip(ciphertextAt), lost, nothing},
		{"flipped in the tag", flip(-1), lost, nothing},
		{"another key's", func(_, other, _ []byte) []byte { return other }, lost, nothing},
		{"another DEK's id", func(own, _, other []byte) []byte {
			copy(own[idAt:nonceAt], other[idAt:nonceAt])
			return own
		}, lost, nothing},
		{"an unknown version", func(own, _, _ []byte) []byte {
			own[versionAt] = 2
			return own
		}, permanent, func([]byte) string { return "version 2" }},
		{"a DEK without a record", flip(idAt), permanent, func(bad []byte) string {
			return fmt.Sprintf("%x", bad[idAt:nonceAt])
		}},
	}
}

// TestBadEnvelopes plants values in etcd that cannot be opened. Every call that
// would hand one out fails with an error that names its key and cause, changes
// nothing, and is not tried again for ever by clients; everything else goes on.
func TestBadEnvelopes(t *testing.T) {
	l := newLab(t, false)
	proxy := etcdseal.Start(t, l.proxyConfig(t))
	s := newStore(t, l, proxy)
	const key = etcdseal.SecretsPrefix + "bad/victim"
	good := newStore(t, l, proxy)
	good.put(t, "good", 3)
	seal := func(key string) []byte {
		if _, err := s.client.Put(call(t), key, string(l.secret(t, "victim", 100))); err != nil {
			t.Fatalf("putting %s: %v", key, err)
		}
		return etcd.Pairs(t, l.raw, key)[key]
	}
	otherDEK := seal(key)
	proxy.Restart(t) // the next envelopes are under a DEK of the new process
	own, otherKey := seal(key), seal(etcdseal.SecretsPrefix+"bad/other")
	if bytes.Equal(own[idAt:nonceAt], otherDEK[idAt:nonceAt]) {
		t.Fatal("a restarted proxy sealed with the DEK of the process before it")
	}
	for _, bad := range badEnvelopes() {
		t.Run(bad.name, func(t *testing.T) {
			value := bad.make(slices.Clone(own), slices.Clone(otherKey), slices.Clone(otherDEK))
			check := func(t *testing.T, what string, err error) {
				t.Helper()
				checkRefused(t, what, err, bad.codes, key, bad.says(value))
			}
			plant(t, l, key, value)
			s.readBad(t, key, check)
			s.applyBad(t, l, key, value, check)
			s.watchBad(t, l, key, value)
			for _, options := range [][]clientv3.OpOption{
				{clientv3.WithKeysOnly()}, {clientv3.WithCountOnly()},
			} {
				if _, err := s.client.Get(call(t), key, options...); err != nil {
					t.Errorf("getting no value of a bad key: %v", err)
				}
			}
		})
	}
	if _, err := s.client.Put(call(t), key, "whole again"); err != nil {
		t.Errorf("putting over a bad value: %v", err)
	}
	response, err := s.client.Get(call(t), key)
	if err != nil || string(response.Kvs[0].Value) != "whole again" {
		t.Errorf("getting what was put over a bad value: %v", err)
	}
	for key, want := range good.values {
		response, err := s.client.Get(call(t), key)
		if err != nil || !bytes.Equal(response.Kvs[0].Value, want) {
			t.Errorf("getting %s: %v (or another value)", key, err)
		}
	}
}

// readBad reads the bad key in every way there is.
func (s *store) readBad(t *testing.T, key string, check func(*testing.T, string, error)) {
	t.Helper()
	_, err := s.client.Get(call(t), key)
	check(t, "get", err)
	_, err = s.client.Get(call(t), etcdseal.SecretsPrefix, clientv3.WithPrefix())
	check(t, "list", err)
	_, err = s.client.Txn(call(t)).Then(clientv3.OpGet(key)).Commit()
	check(t, "get in a transaction", err)
	_, err = s.client.Txn(call(t)).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(key)}, nil)).Commit()
	check(t, "get in a nested transaction", err)
	stream, err := s.client.GetStream(call(t), etcdseal.SecretsPrefix, clientv3.WithPrefix())
	if err == nil {
		_, err = clientv3.GetStreamToGetResponse(stream)
	}
	check(t, "stream of a list", err)
}

// applyBad makes calls that etcd applies and whose answers hold the bad value:
// the errors must say so, or a client would think that nothing has happened.
func (s *store) applyBad(t *testing.T, l *lab, key string, value []byte, check func(*testing.T, string, error)) {
	t.Helper()
	for what, apply := range map[string]func() error{
		"put with the previous value": func() error {
			_, err := s.client.Put(call(t), key, "new", clientv3.WithPrevKV())
			return err
		},
		"delete with the previous value": func() error {
			_, err := s.client.Delete(call(t), key, clientv3.WithPrevKV())
			return err
		},
		"put with the previous value in a transaction": func() error {
			_, err := s.client.Txn(call(t)).Then(clientv3.OpPut(key, "new", clientv3.WithPrevKV())).Commit()
			return err
		},
	} {
		plant(t, l, key, value)
		err := apply()
		check(t, what, err)
		applied := fmt.Sprintf("applied at revision %d", revision(t, l.raw))
		if err != nil && !strings.Contains(status.Convert(err).Message(), applied) {
			t.Errorf("%s: error %q does not say %q", what, err, applied)
		}
	}
}

// watchBad watches the bad key and another one on one stream: the first watch
// is cancelled once with the reason, the second goes on. The stream is spoken to
// by hand, since clientv3 keeps the reason to itself.
func (s *store) watchBad(t *testing.T, l *lab, key string, value []byte) {
	t.Helper()
	const other = etcdseal.SecretsPrefix + "watched"
	stream := newWatchStream(t, s.client)
	bad, well := stream.create(t, key), stream.create(t, other)
	plant(t, l, key, value)
	stream.expectCancelled(t, bad, key)
	for range 2 {
		want := l.secret(t, "watched", 10)
		plant(t, l, key, value) // of this nothing may be heard any more
		if _, err := s.client.Put(call(t), other, string(want)); err != nil {
			t.Fatalf("putting %s: %v", other, err)
		}
		seen := stream.next(t)
		if seen.WatchId != well || seen.Canceled || len(seen.Events) != 1 || !bytes.Equal(seen.Events[0].Kv.Value, want) {
			t.Errorf("watch beside a cancelled one: %d events of watch %d, cancelled %v (%s), or another value",
				len(seen.Events), seen.WatchId, seen.Canceled, seen.CancelReason)
		}
	}
	for range s.client.Watch(call(t), key, clientv3.WithRev(revision(t, l.raw)-1)) {
		t.Error("clientv3 was shown a bad value, or an answer of its own to it")
	}
}

// plant writes a value into etcd behind the proxy's back.
func plant(t *testing.T, l *lab, key string, value []byte) {
	t.Helper()
	if _, err := l.raw.Put(call(t), key, string(value)); err != nil {
		t.Fatalf("planting %s: %v", key, err)
	}
}

// checkRefused demands an error of the proxy's own, with one of the codes, that
// names the key and says the text.
func checkRefused(t *testing.T, what string, err error, want []codes.Code, key, says string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: succeeded, want %v", what, want)
		return
	}
	got := status.Convert(err)
	if !slices.Contains(want, got.Code()) {
		t.Errorf("%s: code %v, want %v (%v)", what, got.Code(), want, got.Message())
	}
	if !strings.HasPrefix(got.Message(), "etcdseal: ") {
		t.Errorf("%s: text %q does not begin with etcdseal", what, got.Message())
	}
	for _, text := range []string{key, says} {
		if !strings.Contains(got.Message(), text) {
			t.Errorf("%s: text %q does not say %q", what, got.Message(), text)
		}
	}
}
