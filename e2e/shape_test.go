package e2e

import (
	"bytes"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
)

// TestValuesOfEveryShape writes values that look like something else: each must
// be sealed as it is and come back as it was.
func TestValuesOfEveryShape(t *testing.T) {
	l := newLab(t, false)
	cfg := l.proxyConfig(t)
	cfg.Rules = append(etcdseal.DefaultRules(),
		etcdseal.Rule{Prefix: "/denied/", Deny: true},
		etcdseal.Rule{Prefix: "/passed/", Passthrough: true})
	s := newStore(t, l, etcdseal.Start(t, cfg))
	const key = etcdseal.SecretsPrefix + "shape"
	s.put(t, "sample", 1)
	sample := etcd.Pairs(t, l.raw, etcdseal.SecretsPrefix)[etcdseal.SecretsPrefix+"sample-000"]
	for name, want := range map[string][]byte{
		"empty":               {},
		"one byte":            {0},
		"an envelope's magic": []byte("\x00es"),
		"a whole envelope":    sample,
		"in-tree encryption":  []byte("k8s:enc:kms:v2:name:rest"),
		"one megabyte":        l.secret(t, "large", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.client.Put(call(t), key, string(want)); err != nil {
				t.Fatalf("putting: %v", err)
			}
			response, err := s.client.Get(call(t), key)
			if err != nil || len(response.Kvs) != 1 || !bytes.Equal(response.Kvs[0].Value, want) {
				t.Errorf("getting: %v (or another value)", err)
			}
			stored := etcd.Pairs(t, l.raw, key)[key]
			if _, err := etcd.EnvelopeID(stored); err != nil || len(stored) != len(want)+etcd.EnvelopeOverhead {
				t.Errorf("stored value has %d bytes for %d: %v", len(stored), len(want), err)
			}
		})
	}
	t.Run("stored plaintext where it is allowed", func(t *testing.T) {
		plant(t, l, key, []byte("plain"))
		if response, err := s.client.Get(call(t), key); err != nil || string(response.Kvs[0].Value) != "plain" {
			t.Errorf("getting plaintext: %v (or another value)", err)
		}
	})
	t.Run("stored plaintext where it is denied", func(t *testing.T) {
		const key = "/denied/plain"
		plant(t, l, key, l.secret(t, "planted", 10))
		s.readDenied(t, key)
		plant(t, l, key, nil)
		if response, err := s.client.Get(call(t), key); err != nil || len(response.Kvs) != 1 {
			t.Errorf("getting an empty stored value: %v, want an empty value", err)
		}
	})
	t.Run("broken envelope that is passed through", func(t *testing.T) {
		const key = "/passed/broken"
		broken := slices.Clone(sample)
		broken[len(broken)-1] ^= 1
		plant(t, l, key, broken)
		response, err := s.client.Get(call(t), key)
		if err != nil || len(response.Kvs) != 1 || !bytes.Equal(response.Kvs[0].Value, broken) {
			t.Errorf("getting a broken envelope under onUndecryptable: passthrough: %v (or not its bytes)", err)
		}
	})
}

// readDenied reads plaintext under a rule with plaintext: deny.
func (s *store) readDenied(t *testing.T, key string) {
	t.Helper()
	_, err := s.client.Get(call(t), key)
	checkRefused(t, "get", err, []codes.Code{codes.FailedPrecondition}, key, "")
	_, err = s.client.Get(call(t), "/denied/", clientv3.WithPrefix())
	checkRefused(t, "list", err, []codes.Code{codes.FailedPrecondition}, key, "")
	stream := newWatchStream(t, s.client)
	stream.start(t, key, 1)
	created := stream.next(t)
	stream.expectCancelled(t, created.WatchId, key)
}
