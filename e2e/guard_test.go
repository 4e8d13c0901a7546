package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
)

// TestReservedPrefix tries to change the keyring through the proxy in every way
// that etcd's API has. Reading it is allowed.
func TestReservedPrefix(t *testing.T) {
	l := newLab(t, false)
	proxy := etcdseal.Start(t, l.proxyConfig(t))
	s := newStore(t, l, proxy)
	s.put(t, "sealed", 3)
	before := etcd.Pairs(t, l.raw, etcdseal.KeyringPrefix)
	record := anyKey(t, before)

	for name, write := range reservedWrites(s.client, record) {
		t.Run(name, func(t *testing.T) {
			err := write(call(t))
			if got := status.Code(err); got != codes.PermissionDenied {
				t.Errorf("code %v (%v), want PermissionDenied", got, err)
			}
		})
	}
	for name, write := range reservedCalls(s.client.ActiveConnection(), record) {
		t.Run(name, func(t *testing.T) {
			err := write(call(t))
			if got := status.Code(err); got != codes.PermissionDenied && got != codes.Unimplemented {
				t.Errorf("code %v (%v), want PermissionDenied or Unimplemented", got, err)
			}
		})
	}
	if diff := cmp.Diff(printable(before), printable(etcd.Pairs(t, l.raw, etcdseal.KeyringPrefix))); diff != "" {
		t.Errorf("the keyring has changed (-before +after):\n%s", diff)
	}
	seen, err := s.client.Get(call(t), etcdseal.KeyringPrefix, clientv3.WithPrefix())
	if err != nil || len(seen.Kvs) != len(before) {
		t.Errorf("reading the keyring through the proxy: %v", err)
	}
	for _, key := range []string{"/etcdseal", "/etcdseal0"} {
		if _, err := s.client.Put(call(t), key, "beside"); err != nil {
			t.Errorf("putting %s, which is beside the prefix: %v", key, err)
		}
		if _, err := s.client.Delete(call(t), key); err != nil {
			t.Errorf("deleting %s, which is beside the prefix: %v", key, err)
		}
	}
	s.check(t, s.client)
}

// reservedWrites are writes that touch the record or its prefix.
func reservedWrites(client *clientv3.Client, record string) map[string]func(context.Context) error {
	op := func(op clientv3.Op) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := client.Do(ctx, op)
			return err
		}
	}
	nested := clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete(record)}, nil)})
	return map[string]func(context.Context) error{
		"put of a record":               op(clientv3.OpPut(record, "{}")),
		"put of a new key":              op(clientv3.OpPut(etcdseal.KeyringPrefix+"new", "{}")),
		"put of the prefix itself":      op(clientv3.OpPut(etcdseal.KeyringPrefix, "{}")),
		"put with ignored value":        op(clientv3.OpPut(record, "", clientv3.WithIgnoreValue())),
		"delete of a record":            op(clientv3.OpDelete(record)),
		"delete of the prefix":          op(clientv3.OpDelete(etcdseal.KeyringPrefix, clientv3.WithPrefix())),
		"delete of everything":          op(clientv3.OpDelete("", clientv3.WithFromKey())),
		"delete of a range around":      op(clientv3.OpDelete("/a", clientv3.WithRange("/z"))),
		"delete of a range that enters": op(clientv3.OpDelete("/a", clientv3.WithRange(record+"\x00"))),
		"delete of a range that leaves": op(clientv3.OpDelete(record, clientv3.WithRange("/z"))),
		"put in a transaction":          op(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(record, "{}")}, nil)),
		"delete in the other branch":    op(clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpDelete(record)})),
		"delete in a nested transaction": op(clientv3.OpTxn(nil,
			[]clientv3.Op{clientv3.OpGet("x"), nested}, nil)),
	}
}

// reservedCalls are the calls by which etcd itself writes or deletes a key that
// the client names.
func reservedCalls(conn *grpc.ClientConn, record string) map[string]func(context.Context) error {
	election := v3electionpb.NewElectionClient(conn)
	lock := v3lockpb.NewLockClient(conn)
	leader := &v3electionpb.LeaderKey{Name: []byte("/harmless"), Key: []byte(record), Rev: 1}
	return map[string]func(context.Context) error{
		"campaign": func(ctx context.Context) error {
			_, err := election.Campaign(ctx, &v3electionpb.CampaignRequest{
				Name: []byte(etcdseal.KeyringPrefix + "election"), Value: []byte("v")})
			return err
		},
		"proclaim": func(ctx context.Context) error {
			_, err := election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("v")})
			return err
		},
		"resign": func(ctx context.Context) error {
			_, err := election.Resign(ctx, &v3electionpb.ResignRequest{Leader: leader})
			return err
		},
		"lock": func(ctx context.Context) error {
			_, err := lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte(etcdseal.KeyringPrefix + "lock")})
			return err
		},
		"unlock": func(ctx context.Context) error {
			_, err := lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: []byte(record)})
			return err
		},
	}
}

// TestNoWayAround tries to read and write a sealed key on the proxy's port past
// the sealing: through etcd's JSON gateway, by paths that etcd takes for Put
// although they are spelt differently, and by an election's value.
func TestNoWayAround(t *testing.T) {
	l := newLab(t, true)
	cfg := l.proxyConfig(t)
	proxy := etcdseal.Start(t, cfg)
	s := newStore(t, l, proxy)
	s.put(t, "sealed", 1)
	const target = etcdseal.SecretsPrefix + "around"
	value := l.secret(t, "around", 10)

	encode := base64.StdEncoding.EncodeToString
	for path, body := range map[string]string{
		"/v3/kv/put":            fmt.Sprintf(`{"key":%q,"value":%q}`, encode([]byte(target)), encode(value)),
		"/v3/kv/range":          fmt.Sprintf(`{"key":%q}`, encode([]byte(etcdseal.SecretsPrefix+"sealed-000"))),
		"/v3/kv/txn":            fmt.Sprintf(`{"success":[{"requestPut":{"key":%q,"value":%q}}]}`, encode([]byte(target)), encode(value)),
		"/v3/election/campaign": fmt.Sprintf(`{"name":%q,"value":%q}`, encode([]byte(target)), encode(value)),
	} {
		t.Run("gateway "+path, func(t *testing.T) {
			answer, err := post(call(t), proxy.Endpoint()+path, body)
			if err == nil && strings.Contains(answer, encode([]byte("\x00es"))[:4]) {
				t.Errorf("the gateway answered with an envelope")
			}
			checkNothingPlain(t, l)
		})
	}
	for _, path := range []string{
		"/etcdserverpb.KV/%50ut", "/etcdserverpb.KV/Put?x=1", "/etcdserverpb.KV/Put/", "//etcdserverpb.KV/Put",
		"/etcdserverpb.KV/put", "/KV/Put",
	} {
		t.Run("path "+path, func(t *testing.T) {
			request := &etcdserverpb.PutRequest{Key: []byte(target), Value: value}
			err := s.client.ActiveConnection().Invoke(call(t), path, request, &etcdserverpb.PutResponse{})
			if got := status.Code(err); got != codes.Unimplemented {
				t.Errorf("code %v (%v), want Unimplemented", got, err)
			}
			checkNothingPlain(t, l)
		})
	}
	t.Run("campaign for a sealed name", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(call(t), absenceLimit)
		defer cancel()
		election := v3electionpb.NewElectionClient(s.client.ActiveConnection())
		_, err := election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte(target), Value: value})
		t.Logf("answer: %v", status.Code(err))
		checkNothingPlain(t, l)
	})
}

// checkNothingPlain demands that etcd holds nothing but envelopes among the
// secrets, and the planted plaintext nowhere.
func checkNothingPlain(t *testing.T, l *lab) {
	t.Helper()
	for key, value := range etcd.Pairs(t, l.raw, "") {
		if strings.HasPrefix(key, etcdseal.SecretsPrefix) && !etcd.IsEnvelope(value) {
			t.Errorf("stored value of %s is not an envelope", key)
		}
		if bytes.Contains(value, []byte(l.marker)) {
			t.Errorf("stored value of %s is plaintext", key)
		}
	}
}

// post sends JSON over HTTP/1.1 and returns the answer of whatever status.
func post(ctx context.Context, url, body string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return string(answer), err
}

func printable(pairs map[string][]byte) map[string]string {
	keys := map[string]string{}
	for key, value := range pairs {
		keys[key] = fmt.Sprintf("%x", value)
	}
	return keys
}

func anyKey(t *testing.T, pairs map[string][]byte) string {
	t.Helper()
	for key := range pairs {
		return key
	}
	t.Fatal("etcd holds no keyring record")
	return ""
}
