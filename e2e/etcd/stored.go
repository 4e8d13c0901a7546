package etcd

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The envelope's fields that these tests read, restated here from docs/FORMAT.md
// on purpose: a test that used the product's own parser could not notice a
// change of the format.
const (
	envelopeMagic    = "\x00es"
	envelopeVersion  = 1
	envelopeIDStart  = 4
	envelopeIDEnd    = 20
	EnvelopeOverhead = 48
)

// KubernetesMagic begins every protobuf object that kube-apiserver stores.
const KubernetesMagic = "k8s\x00"

// EnvelopeID returns the DEK id of a stored envelope as 32 hexadecimal digits,
// or an error that says why the value is not an envelope of version 1.
func EnvelopeID(value []byte) (string, error) {
	if !IsEnvelope(value) {
		return "", errors.New("value does not begin with the envelope's magic")
	}
	if len(value) < EnvelopeOverhead {
		return "", fmt.Errorf("envelope has %d bytes, fewer than the overhead", len(value))
	}
	if version := value[len(envelopeMagic)]; version != envelopeVersion {
		return "", fmt.Errorf("envelope has version %d", version)
	}
	return hex.EncodeToString(value[envelopeIDStart:envelopeIDEnd]), nil
}

// IsEnvelope reports whether the value begins with the envelope's magic.
func IsEnvelope(value []byte) bool { return bytes.HasPrefix(value, []byte(envelopeMagic)) }

// Pairs reads everything under prefix from etcd itself.
func Pairs(t testing.TB, client *clientv3.Client, prefix string) map[string][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	response, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatalf("reading %s from etcd: %v", prefix, err)
	}
	pairs := make(map[string][]byte, len(response.Kvs))
	for _, kv := range response.Kvs {
		pairs[string(kv.Key)] = kv.Value
	}
	return pairs
}

// Keyring is what is known of the keyring under one prefix: the key of the
// record of each DEK by the DEK's id.
type Keyring map[string]string

// ReadKeyring reads the keyring under prefix from etcd itself. A tombstone,
// which has no wrapping, is not a record.
func ReadKeyring(t testing.TB, client *clientv3.Client, prefix string) Keyring {
	t.Helper()
	keyring := make(Keyring)
	for key, value := range Pairs(t, client, prefix) {
		if id, ok := recordID(value); ok {
			keyring[id] = key
		}
	}
	return keyring
}

// recordID returns the DEK id of a keyring record, and false for anything else.
func recordID(value []byte) (string, bool) {
	var record struct {
		ID        string            `json:"id"`
		Wrappings []json.RawMessage `json:"wrappings"`
	}
	if json.Unmarshal(value, &record) != nil || record.ID == "" || len(record.Wrappings) == 0 {
		return "", false
	}
	return record.ID, true
}
